from . import app_center, backend, mails, setup_protocol
