"""Who a login is, for mails: from metadata that knows addresses, or from what every metadata knows of a user."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from openems.backend.interfaces import IMailDirectory
from openems.backend.models import MailRecipient
from openems.common.errors import OpenemsError


@implementer(IMailDirectory)
class UsersOfMetadata:
    """``metadata``: an IMetadata. The user's ``email`` is the address, his name is taken apart at the last blank."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata

    async def mail_recipient(self, user_login: str, edge_id: str | None) -> MailRecipient | None:
        try:
            user = await self._metadata.get_user_by_external_id(user_login)
        except OpenemsError:
            return None
        if "@" not in user.email or (edge_id is not None and self._metadata.get_user_role(user, edge_id) is None):
            return None
        firstname, _, lastname = user.name.rpartition(" ")
        timezone = user.settings.get("timezone")
        return MailRecipient(
            login=user.id,
            address=user.email,
            firstname=firstname,
            lastname=lastname if user.name != user.email else "",
            language=user.language,
            timezone=timezone if isinstance(timezone, str) else None,
        )


def directory_of(metadata: Any) -> Any:
    """An IMailDirectory."""
    return metadata if IMailDirectory.providedBy(metadata) else UsersOfMetadata(metadata)
