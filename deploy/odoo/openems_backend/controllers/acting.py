"""Who may call, and for whom: the backend calls with one session and names the user it acts for."""

import re

from odoo.http import request, root
from odoo.service import security

SESSION_ID = re.compile(r"[0-9a-zA-Z_-]{40,84}\Z")


class OpenemsException(Exception):
    """Its text is shown to users as it is."""


class UserNotFoundOpenemsException(OpenemsException):
    """Nobody is known by what was asked for: to the backend, a refused login."""


def as_manager():
    """The environment of the caller, with all rights. Every route begins with this: a portal user has a session,
    too, and must not act as somebody else."""
    if not request.env.user.has_group("openems_backend.group_openems_manager"):
        raise OpenemsException("Only the backend's own user may do this")
    return request.env(su=True)


def acting_user(external_uid):
    """The user whom ``external_uid`` names: an OAuth subject, a login, or the id of a live session."""
    env = as_manager()
    # An empty one would find every user without an OAuth subject.
    if not isinstance(external_uid, str) or not external_uid.strip():
        raise UserNotFoundOpenemsException("No user is named")
    users = env["res.users"]
    found = users.search([("oauth_uid", "=", external_uid)], limit=2)
    if not found:
        found = users.search([("login", "=", external_uid)], limit=2)
    if not found:
        found = _user_of_session(external_uid)
    if len(found) != 1:
        raise UserNotFoundOpenemsException("User not found")
    return found


def _user_of_session(session_id):
    users = request.env(su=True)["res.users"]
    if not SESSION_ID.match(session_id) or not root.session_store.is_valid_key(session_id):
        return users
    session = root.session_store.get(session_id)
    if session.db != request.session.db or not session.uid or not session.session_token:
        return users
    # A changed password, or an archived user, ends sessions: the token made of it no longer fits.
    user = users.browse(session.uid).exists()
    if not user or not user.active or not security.check_session(session, user.env):
        return users
    return user


def device_of(edge_id):
    """The device of this name, archived ones too; an error if there is none."""
    devices = as_manager()["openems.device"].with_context(active_test=False)
    device = devices.search([("name", "=", edge_id)], limit=1) if isinstance(edge_id, str) and edge_id else devices
    if not device:
        raise OpenemsException("Edge not found for id [%s]" % edge_id)
    return device
