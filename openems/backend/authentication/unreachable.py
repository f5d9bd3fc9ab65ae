"""That the login service (an identity provider) cannot be asked now, told apart from other things that are not there
(auth.md S20): the UI is refused then, other systems are told to come again."""

from __future__ import annotations

from openems.common import errors
from openems.common.errors import OpenemsError


class LoginServiceUnreachable(OpenemsError):
    """1006."""

    def __init__(self) -> None:
        super().__init__(errors.COMMON_SERVICE_NOT_AVAILABLE)
