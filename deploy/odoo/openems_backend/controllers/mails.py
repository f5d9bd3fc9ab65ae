import logging

from odoo import fields, http

from .acting import OpenemsException, as_manager

_logger = logging.getLogger(__name__)
STAMPS = {"alerting_offline": "offline_last_notification", "alerting_sum_state": "sum_state_last_notification"}


def send(env, template, record_id, attachment=None, **context):
    """1 if Odoo's outgoing server took the mail, else 0; the mail then stays in Odoo's list of failed ones."""
    values = {"auto_delete": False}
    if attachment is not None:
        values["attachment_ids"] = [(4, attachment.id)]
    mail_id = env.ref(template).with_context(**context).send_mail(record_id, email_values=values)
    mail = env["mail.mail"].browse(mail_id)
    mail.send(raise_exception=False)
    if mail.exists() and mail.state != "sent":
        _logger.warning("mail %s was not sent: %s", mail_id, mail.failure_reason)
        return 0
    return 1


def sent_at(text):
    """UTC; both ``2026-04-20 11:22:33`` and the form with a T."""
    try:
        return fields.Datetime.to_datetime(str(text).replace("T", " ")[:19])
    except ValueError:
        raise OpenemsException("[sentAt] is not of the form YYYY-MM-DD HH:MM:SS") from None


class Mails(http.Controller):
    @http.route("/openems_backend/mail/alerting_offline", type="json", auth="user")
    def alerting_offline(self, sentAt=None, params=None):
        return self._alert("alerting_offline", sentAt, params)

    @http.route("/openems_backend/mail/alerting_sum_state", type="json", auth="user")
    def alerting_sum_state(self, sentAt=None, params=None):
        return self._alert("alerting_sum_state", sentAt, params)

    @staticmethod
    def _alert(template, sentAt, params):
        """Mails to the users named by login, for edges they have settings for. Each sent one is noted with its
        settings; ``mails_sent`` counts what an outgoing server took."""
        env = as_manager()
        when = sent_at(sentAt)
        wanted = sent = 0
        for element in params or []:
            logins = element.get("recipients") or []
            records = env["openems.alerting"].search(
                [("device_name", "=", element.get("edgeId")), ("user_login", "in", logins)]
            )
            for record in records.filtered(lambda record: record.user_id.active and record.user_id.email):
                wanted += 1
                if send(env, "openems_backend." + template, record.id, openems_state=element.get("state")):
                    sent += 1
                    record[STAMPS[template]] = when
        if wanted and not sent:
            return {"status": "error", "message": "None of %d mails could be sent" % wanted}
        return {"status": "success", "mails_sent": sent}

    @http.route("/openems_backend/sendRegistrationEmail", type="json", auth="user")
    def send_registration_email(self, userId=None, password=None, oem=""):
        env = as_manager()
        user = env["res.users"].browse(int(userId)).exists()
        if not user:
            raise OpenemsException("User not found")
        sent = send(env, "openems_backend.registration_email", user.id, openems_password=password or "*****")
        return {"mails_sent": sent}
