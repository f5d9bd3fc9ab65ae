"""What twistd can start: ``twistd -n openems-backend``, ``openems-edge-application``, ``openems-simulator``.

There is no ``__init__.py`` beside this file, on purpose: ``twisted.plugins`` is a package of many distributions.
"""

from twisted.application.service import ServiceMaker

backend = ServiceMaker(
    "OpenEMS Backend",
    "openems.application.service",
    "Connects OpenEMS Edges with their users, history and services.",
    "openems-backend",
)

edge_application = ServiceMaker(
    "OpenEMS Backend Edge Application",
    "openems.application.edgeapplication",
    "Stands between OpenEMS Edges and an OpenEMS Backend.",
    "openems-edge-application",
)

simulator = ServiceMaker(
    "OpenEMS Simulator",
    "openems.application.simulator",
    "A fleet of simulated OpenEMS Edges.",
    "openems-simulator",
)
