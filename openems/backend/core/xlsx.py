"""The spreadsheet of a period (wire.md 6.7, ui.md 11.4): layout as in Java; energies with two decimals, the last day of
the period as asked for, texts in English where a language lacks them. Pure: data in, bytes out."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping
from typing import Any

import msgspec
import xlsxwriter

from openems.backend.models import History
from openems.common.data import Value
from openems.common.edgeconfig import Component, EdgeConfig
from openems.common.role import Language

POWER_CHANNELS = (
    "_sum/GridActivePower",
    "_sum/ProductionActivePower",
    "_sum/ConsumptionActivePower",
    "_sum/EssDischargePower",
    "_sum/EssSoc",
)
#: In the order of the columns.
ENERGY_CHANNELS = (
    "_sum/GridBuyActiveEnergy",
    "_sum/GridSellActiveEnergy",
    "_sum/ProductionActiveEnergy",
    "_sum/EssDcChargeEnergy",
    "_sum/EssDcDischargeEnergy",
    "_sum/ConsumptionActiveEnergy",
)
_DC_CHARGER = "io.openems.edge.ess.dccharger.api.EssDcCharger"
_METER = "io.openems.edge.meter.api.ElectricityMeter"
_EVCS = "io.openems.edge.evcs.api.DeprecatedEvcs"
_TARIFF = "io.openems.edge.timeofusetariff.api.TimeOfUseTariff"
_TARIFF_CONTROLLER = "Controller.Ess.Time-Of-Use-Tariff"
_CATEGORY_OF_TYPE = {
    "CONSUMPTION_METERED": "consumption",
    "CONSUMPTION_NOT_METERED": "consumption",
    "MANAGED_CONSUMPTION_METERED": "consumption",
    "PRODUCTION": "production",
    "GRID": None,
    "GRID_GENSET": None,
    "PRODUCTION_AND_CONSUMPTION": None,
}
_PRODUCTION_FACTORIES = frozenset(
    (
        "Simulator.PvInverter Fenecon.Dess.PvMeter Fenecon.Mini.PvMeter Kaco.BlueplanetHybrid10.PvInverter "
        "PvInverter.Cluster PV-Inverter.Fronius PV-Inverter.KACO.blueplanet PV-Inverter.SMA.SunnyTripower "
        "PV-Inverter.Kostal PV-Inverter.Solarlog Simulator.ProductionMeter.Acting SolarEdge.PV-Inverter"
    ).split()
)
_CONSUMPTION_FACTORIES = frozenset(
    (
        "GoodWe.EmergencyPowerMeter Simulator.NRCMeter.Acting Evcs.AlpitronicHypercharger Evcs.Dezony "
        "Evcs.Goe.ChargerHome Evcs.HardyBarth Evcs.Keba.KeContact Evcs.Ocpp.Abl Evcs.Ocpp.IesKeywattSingle "
        "Evcs.Spelsberg.SMART Evcs.Webasto.Next Evcs.Webasto.Unite"
    ).split()
)
_MINOR_UNITS = {"EUR": "Cent", "SEK": "Öre", "CHF": "Rappen"}
_CATEGORIES = ("production", "consumption", "timeOfUse")

_EN = {
    "exportCreatedOn": "Export created on",
    "exportPeriod": "Export Period",
    "gridBuy": "Grid Purchase",
    "gridFeedIn": "Grid feed-in",
    "production": "Production",
    "storageCharging": "Storage Charging",
    "storageDischarging": "Storage Discharging",
    "consumption": "Consumption",
    "stateOfCharge": "State of Charge",
    "date/time": "Date / Time",
    "notAvailable": "not available",
    "timeOfUse": "Time of Use Tariff",
    "totalOverview": "Total Overview",
    "generalData": "General Data",
    "detailData": "Data of single devices",
    "detailHint": "These values are part of the totals already",
}
_TEXTS: dict[Language, dict[str, str]] = {
    Language.EN: _EN,
    Language.DE: {
        "exportCreatedOn": "Export erstellt am",
        "exportPeriod": "Export Zeitraum",
        "gridBuy": "Netzbezug",
        "gridFeedIn": "Netzeinspeisung",
        "production": "Erzeugung",
        "storageCharging": "Speicher Beladung",
        "storageDischarging": "Speicher Entladung",
        "consumption": "Verbrauch",
        "stateOfCharge": "Ladezustand",
        "date/time": "Datum / Uhrzeit",
        "notAvailable": "nicht vorhanden",
        "timeOfUse": "Dynamischer Stromtarif",
        "totalOverview": "Gesamtübersicht",
        "generalData": "Allgemeine Daten",
        "detailData": "Daten einzelner Geräte",
        "detailHint": "Diese Werte sind in der Übersicht schon enthalten",
    },
    Language.CZ: {"production": "Výroba", "consumption": "Spotřeba", "date/time": "Datum / čas"},
    Language.NL: {"production": "Productie", "consumption": "Verbruik", "date/time": "Datum / tijd"},
    Language.ES: {"production": "Producción", "consumption": "Consumo", "date/time": "Fecha / hora"},
    Language.FR: {"production": "Production", "consumption": "Consommation", "date/time": "Date / heure"},
}
_DAY = "%d.%m.%Y"
_TIME = "%d.%m.%Y %H:%M:%S %z"


class Item(msgspec.Struct, frozen=True):
    """One column of the details."""

    category: str
    channel: str
    alias: str


class Details(msgspec.Struct, frozen=True):
    """``items``: production, then consumption, then tariff; ``minor_unit``: of the currency, 100 of them are one."""

    items: tuple[Item, ...]
    minor_unit: str

    def of(self, category: str) -> list[Item]:
        return [item for item in self.items if item.category == category]


def details_of(config: EdgeConfig) -> Details:
    """The columns an edge's configuration asks for; a tariff without its controller is left out."""
    items = []
    for component in config.components.values():
        natures = config.natures(component)
        for nature in natures:
            if nature == _DC_CHARGER:
                items.append(Item("production", f"{component.id}/ActualPower", component.alias))
            elif nature == _METER:
                category = _meter_category(component)
                if category is not None:
                    channel = "ChargePower" if _EVCS in natures else "ActivePower"
                    items.append(Item(category, f"{component.id}/{channel}", component.alias))
            elif nature == _TARIFF:
                controller = config.first_of_factory(_TARIFF_CONTROLLER)
                if controller is not None:
                    items.append(Item("timeOfUse", f"{controller.id}/QuarterlyPrices", component.alias))
    meta = config.components.get("_meta")
    currency = str(meta.properties.get("currency", "EUR")).upper() if meta is not None else "EUR"
    items.sort(key=lambda item: _CATEGORIES.index(item.category))
    return Details(tuple(items), _MINOR_UNITS.get(currency, "Cent"))


def _meter_category(component: Component) -> str | None:
    kind = component.properties.get("type")
    if isinstance(kind, str) and kind.upper() in _CATEGORY_OF_TYPE:
        return _CATEGORY_OF_TYPE[kind.upper()]
    if component.factory_id in _PRODUCTION_FACTORIES:
        return "production"
    return "consumption" if component.factory_id in _CONSUMPTION_FACTORIES else None


def half_up(value: float, digits: int = 0) -> float | int:
    """Rounded away from zero at the half, as Java's Math.round does for positive numbers."""
    factor = 10**digits
    rounded = int(abs(value) * factor + 0.5) / factor
    result = -rounded if value < 0 else rounded
    return result if digits else int(result)


def split(value: float | None) -> tuple[float | None, float | None]:
    """A signed power as (positive part, negative part), both not negative.

    >>> split(50), split(-50)
    ((50, 0), (0, 50))
    """
    if value is None:
        return None, None
    return (value, 0) if value >= 0 else (0, -value)


def _number(value: Value) -> float | int | None:
    # What is no number compares false; infinity is none for a spreadsheet either.
    return value if isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300 else None


def workbook(
    edge_id: str,
    created: datetime.datetime,
    from_date: datetime.datetime,
    to_date: datetime.datetime,
    power: History,
    energy: Mapping[str, Value],
    details: Details,
    language: Language,
) -> bytes:
    """The file. ``to_date`` is the exclusive end; times are in the zone of ``from_date``."""
    texts = {**_EN, **_TEXTS.get(language, {})}
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    sheet = book.add_worksheet("Export")
    bold = book.add_format({"bold": True})
    title = book.add_format(
        {"bold": True, "font_name": "Calibri", "font_size": 12, "align": "center", "bg_color": "#44B3E1"}
    )
    head = book.add_format({"bold": True, "bg_color": "#BFBFBF"})
    total = book.add_format({"bg_color": "#D9D9D9"})
    missing = book.add_format({"italic": True, "bg_color": "#D9D9D9"})
    hint = book.add_format({"bg_color": "#BFBFBF"})

    sheet.write_string(0, 0, "Nr.", bold)
    sheet.write_string(0, 1, edge_id)
    sheet.write_string(1, 0, texts["exportCreatedOn"], bold)
    sheet.write_string(1, 1, created.strftime(_TIME))
    sheet.write_string(2, 0, texts["exportPeriod"], bold)
    first, last = from_date.strftime(_DAY), (to_date - datetime.timedelta(seconds=1)).strftime(_DAY)
    sheet.write_string(2, 1, first if first == last else f"{first} - {last}")

    sheet.merge_range(4, 1, 4, 6, texts["totalOverview"], title)
    columns = ("gridBuy", "gridFeedIn", "production", "storageCharging", "storageDischarging", "consumption")
    for column, (key, channel) in enumerate(zip(columns, ENERGY_CHANNELS, strict=True), 1):
        sheet.write_string(5, column, f"{texts[key]} [kWh]", head)
        value = _number(energy.get(channel))
        if value is None:
            sheet.write_string(6, column, texts["notAvailable"], missing)
        else:
            sheet.write_number(6, column, half_up(value / 1000, 2), total)

    sheet.write_string(8, 1, texts["generalData"], bold)
    heads = [texts["date/time"], *(f"{texts[key]} [W]" for key in columns), f"{texts['stateOfCharge']} [%]"]
    for column, text in enumerate(heads):
        sheet.write_string(9, column, text, bold)
    rows = list(zip(*(power.data.get(channel, ()) for channel in POWER_CHANNELS), strict=False))
    zone = from_date.tzinfo
    for index, time in enumerate(power.timestamps):
        row = 10 + index
        sheet.write_string(row, 0, datetime.datetime.fromtimestamp(time / 1000, zone).strftime(_TIME))
        grid, production, consumption, discharge, soc = (
            (_number(value) for value in rows[index]) if index < len(rows) else (None,) * 5
        )
        discharging, charging = split(discharge)
        for column, value in enumerate((*split(grid), production, charging, discharging, consumption, soc), 1):
            _write(sheet, row, column, value, 0)
    last_row = 9 + len(power.timestamps)
    _box(book, sheet, 9, 0, last_row, 7)
    if details.items:
        _write_details(book, sheet, power, details, texts, title, hint, bold, last_row)
    sheet.set_column(0, 7, 25)
    book.close()
    return file.getvalue()


def _write_details(
    book: Any,
    sheet: Any,
    power: History,
    details: Details,
    texts: Mapping[str, str],
    title: Any,
    hint: Any,
    bold: Any,
    last_row: int,
) -> None:
    sheet.merge_range(4, 10, 4, 15, texts["detailData"], title)
    sheet.merge_range(5, 10, 5, 15, texts["detailHint"], hint)
    column = 10
    for category in _CATEGORIES:
        for index, item in enumerate(details.of(category)):
            if index == 0:
                sheet.write_string(8, column, texts[category], bold)
            tariff = category == "timeOfUse"
            unit = f"{details.minor_unit}/kWh" if tariff else "W"
            sheet.write_string(9, column, f"{item.alias} [{unit}]", bold)
            for offset, value in enumerate(power.data.get(item.channel, ())):
                number = _number(value)
                # Prices come as money per MWh; a tenth of that is minor units per kWh.
                _write(sheet, 10 + offset, column, number / 10 if tariff and number is not None else number, 2)
            column += 1
    _box(book, sheet, 9, 10, last_row, column - 1)
    separator = book.add_format({"bg_color": "#44B3E1", "left": 2, "right": 2})
    for row in range(4, last_row + 1):
        sheet.write_blank(row, 8, None, separator)
    sheet.set_column(8, 9, 4)
    sheet.set_column(10, 15, 25)
    sheet.set_column(column, column, 35)


def _write(sheet: Any, row: int, column: int, value: float | None, digits: int) -> None:
    if value is None:
        sheet.write_string(row, column, "-")
    else:
        sheet.write_number(row, column, half_up(value, digits))


def _box(book: Any, sheet: Any, top: int, left: int, bottom: int, right: int) -> None:
    """A thin box, drawn by conditional formats, which leave the cells' own formats alone."""
    for side, area in (
        ("top", (top, left, top, right)),
        ("bottom", (bottom, left, bottom, right)),
        ("left", (top, left, bottom, left)),
        ("right", (top, right, bottom, right)),
    ):
        edge = book.add_format({side: 1})
        sheet.conditional_format(*area, {"type": "formula", "criteria": "=TRUE", "format": edge})
