from hypothesis import HealthCheck, settings

# How fast the machine makes examples is no property of what is tested.
settings.register_profile("openems", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("openems")
