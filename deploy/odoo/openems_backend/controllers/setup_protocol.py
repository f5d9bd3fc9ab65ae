import base64

from odoo import fields, http

from .acting import OpenemsException, acting_user, as_manager, device_of
from .mails import send

REPORT = "openems_backend.report_setup_protocol"


class SetupProtocol(http.Controller):
    @http.route("/openems_backend/get_latest_setup_protocol", type="json", auth="user")
    def get_latest_setup_protocol(self, external_uid=None, edge_name=None):
        """The newest one of an edge that the user may see; else nothing, as if there were none."""
        user = acting_user(external_uid)
        protocols = user.env["openems.setup_protocol"].with_user(user)
        protocol = protocols.search([("device_id.name", "=", edge_name)], limit=1)
        return protocol.sudo()._openems_data() if protocol else {}

    @http.route("/openems_backend/sendSetupProtocolEmail", type="json", auth="user")
    def send_setup_protocol_email(self, setupProtocolId=None, edgeId=None):
        env = as_manager()
        device = device_of(edgeId)
        protocol = env["openems.setup_protocol"].browse(int(setupProtocolId)).exists()
        if not protocol or protocol.device_id != device:
            raise OpenemsException("There is no setup protocol %s of Edge [%s]" % (setupProtocolId, edgeId))
        pdf, _kind = env.ref(REPORT)._render_qweb_pdf(protocol.ids)
        attachment = env["ir.attachment"].create(
            {
                "name": "IBN-%s-%s.pdf" % (edgeId, fields.Date.today().strftime("%d.%m.%Y")),
                "datas": base64.b64encode(pdf),
                # Not at the device, which guests may see.
                "res_model": protocol._name,
                "res_id": protocol.id,
                "mimetype": "application/pdf",
            }
        )
        sent = 0
        for person, template in (("customer", protocol.customer_id), ("installer", protocol.installer_id)):
            if template.email:
                sent += send(env, "openems_backend.setup_protocol_email_" + person, protocol.id, attachment)
        return {"mails_sent": sent}
