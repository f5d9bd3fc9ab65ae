"""Names of methods, each list once: of what a user may ask, whichever way he came, and what is nested in that
(wire.md 6). What is not answered here is the edge's, and those names serve as labels of metrics only."""

from __future__ import annotations

from openems.common.methods import history

#: Asked without a login (ui.md 5, 6), and what is nested in authenticateWithOAuth.
AUTHENTICATION = frozenset(
    {"authenticateWithToken", "authenticateWithPassword", "registerUser", "authenticateWithOAuth", "logout"}
)
OAUTH = frozenset({"initiateConnect", "getTokenByCode", "getTokenByRefreshToken"})

#: Answered by the core for UIs and other systems alike (core.md 3).
CORE = frozenset({"edgeRpc", "getEdgesStatus", "getEdgesChannelsValues", "setGridConnSchedule"})

#: Nested in an appCenter of a user and answered here.
APP_CENTER = frozenset(
    {
        "addRegisterKeyHistory", "addUnregisterKeyHistory", "getRegisteredKeys", "isAppFree", "isKeyApplicable",
        "getPossibleApps",
    }
)  # fmt: skip

#: Nested in edgeRpc.
EDGE_RPC = history.METHODS | {
    "subscribeChannels", "subscribeSystemLog", "simulation", "getEdgeConfig", "appCenter", "createComponentConfig",
    "updateComponentConfig", "deleteComponentConfig", "setChannelValue", "routes", "componentJsonApi",
}  # fmt: skip

#: Nested in a componentJsonApi: components of an edge.
COMPONENT = frozenset(
    {
        "executeSystemCommand", "executeSystemUpdate", "executeSystemRestart", "getSystemUpdateState",
        "getNetworkConfig", "setNetworkConfig", "getNetworkInfo", "getChannel", "getChannelsOfComponent",
        "getStateChannelsOfComponent", "getDigitalInputChannelsOfComponents", "getPropertiesOfFactory",
        "getAllComponentFactories", "channelExportXlsx", "getApps", "getApp", "getAppAssistant", "getAppDescriptor",
        "getAppInstances", "queryAppInstancesByFilter", "addAppInstance", "updateAppInstance", "deleteAppInstance",
        "updateAppConfig", "getUpdateables", "getUpdateState", "executeUpdate", "getSchedule", "getOneTasks",
        "getAllTasks", "addTask", "updateTask", "deleteTask", "getModbusProtocol", "getModbusProtocolExportXlsx",
        "geocode", "dailyWeatherForecast", "hourlyWeatherForecast", "getAllOAuthProvider", "initiateConnect",
        "connect", "disconnectOAuthConnection", "getOAuthConnectionState",
    }
)  # fmt: skip
