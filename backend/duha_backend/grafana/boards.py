"""What the dashboards show: panels and their InfluxQL, as data. Pure.

InfluxQL is the one language that InfluxDB 1, 2 and 3 share. ``$timeFilter`` and
``$__interval`` are Grafana's; names with a dollar sign are variables of the dashboard.
"""

from typing import Literal, NamedTuple

Source = Literal["raw", "15m", "1d"]
Shape = Literal["timeseries", "stat", "table", "state"]
BY_TIME = "GROUP BY time($__interval)"


class Query(NamedTuple):
    """One InfluxQL query; `alias` names its series, with ``$tag_device`` and the like."""

    text: str
    alias: str = ""


class Panel(NamedTuple):
    """One panel, `width` of 24 columns."""

    title: str
    shape: Shape
    source: Source
    unit: str
    queries: tuple[Query, ...]
    width: int = 12
    description: str = ""
    limit: float | None = None


class Variable(NamedTuple):
    """A choice that the viewer has: a query for its values."""

    name: str
    label: str
    source: Source
    query: str


class Board(NamedTuple):
    """One dashboard; `view` is where it leads to on Duha's own page."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-24h"
    view: str = ""


def _tags(measurement: str, tag: str) -> str:
    return f'SHOW TAG VALUES FROM "{measurement}" WITH KEY = "{tag}"'


CABINET = Variable(
    "cabinet", "Cabinet", "15m", _tags("luminaire_cabinet", "controller")
)
GAUGE = Variable("gauge", "Gauge", "1d", _tags("rain", "device"))
MODEL = Variable("model", "Model", "15m", _tags("model", "device"))
NODE = Variable(
    "node", "Node", "15m",
    'SHOW TAG VALUES FROM "node" WITH KEY = "device" WHERE "controller" = \'$model\'',
)  # fmt: skip
_MINE = "\"controller\" = '$cabinet'"


def _last(kind: str, field: str, how: str) -> str:
    """The last value of every device, put together."""
    return (
        f'SELECT {how}("v") FROM (SELECT last("{field}") AS "v" FROM "{kind}"'
        ' WHERE $timeFilter GROUP BY "device")'
    )


CITY = Board(
    "duha-city", "City overview",
    (
        Panel("Power of all cabinets", "stat", "raw", "watt",
              (Query(_last("meter", "power_w", "sum")),), 6),
        Panel("Luminaires heard of", "stat", "raw", "short",
              (Query(_last("luminaire", "level_actual_pct", "count")),), 6),
        Panel("Lamp failures", "stat", "raw", "short",
              (Query(_last("luminaire", "lamp_failure", "sum")),), 6, limit=1),
        Panel("Rain, most of a gauge", "stat", "raw", "lengthmm",
              (Query('SELECT max("v") FROM (SELECT sum("rain_mm") AS "v" FROM "rain_gauge"'
                     ' WHERE $timeFilter GROUP BY "device")'),), 6),
        Panel("Power", "timeseries", "15m", "watt",
              (Query(f'SELECT sum("power_w") FROM "meter_cabinet" WHERE $timeFilter {BY_TIME} fill(none)',
                     "power"),)),
        Panel("Mean level", "timeseries", "15m", "percent",
              (Query(f'SELECT mean("level_actual_pct") FROM "luminaire_cabinet" WHERE $timeFilter {BY_TIME} fill(none)',
                     "level"),)),
        Panel("Share of luminaires that answered", "timeseries", "15m", "percentunit",
              (Query('SELECT sum("answered") / sum("devices") FROM "luminaire_cabinet"'
                     f" WHERE $timeFilter {BY_TIME} fill(none)", "answered"),)),
        Panel("Power by cabinet", "table", "15m", "watt",
              (Query('SELECT last("power_w") AS "power" FROM "meter_cabinet"'
                     ' WHERE $timeFilter GROUP BY "controller"'),)),
    ),
)  # fmt: skip
CABINETS = Board(
    "duha-cabinet", "Cabinet",
    (
        Panel("Power of the phases", "timeseries", "raw", "watt",
              tuple(Query(f'SELECT mean("power_l{p}_w") FROM "meter" WHERE {_MINE} AND $timeFilter {BY_TIME} fill(none)',
                          f"L{p}") for p in (1, 2, 3))),
        Panel("Voltage of the phases", "timeseries", "raw", "volt",
              tuple(Query(f'SELECT mean("voltage_l{p}_v") FROM "meter" WHERE {_MINE} AND $timeFilter {BY_TIME} fill(none)',
                          f"L{p}") for p in (1, 2, 3))),
        Panel("Level: commanded, in effect, actual", "timeseries", "15m", "percent",
              tuple(Query(f'SELECT mean("level_{w}_pct") FROM "luminaire_cabinet" WHERE {_MINE} AND $timeFilter {BY_TIME} fill(none)',
                          w.replace("_", " ")) for w in ("commanded", "in_effect", "actual"))),
        Panel("Lamp failures", "timeseries", "15m", "short",
              (Query(f'SELECT max("lamp_failure") FROM "luminaire_cabinet" WHERE {_MINE} AND $timeFilter {BY_TIME} fill(none)',
                     "failures"),), limit=1),
        Panel("Power of each luminaire", "table", "raw", "watt",
              (Query(f'SELECT last("power_w") AS "power" FROM "luminaire" WHERE {_MINE} AND $timeFilter GROUP BY "device"'),)),
        Panel("Driver temperature, highest", "timeseries", "raw", "celsius",
              (Query(f'SELECT max("driver_temperature_c") FROM "luminaire" WHERE {_MINE} AND $timeFilter {BY_TIME} fill(none)',
                     "temperature"),)),
    ),
    (CABINET,), view="#cabinet=$cabinet",
)  # fmt: skip
_POSSIBLE = '"d" >= 0 AND "d" <= 1050'
"""Energy that a cabinet can draw in a day [kWh]: three phases of 63 A."""
ENERGY = Board(
    "duha-energy", "Energy",
    (
        Panel("Energy of a day, by the meters", "timeseries", "1d", "kwatth",
              (Query('SELECT sum("d") FROM (SELECT difference("energy_kwh") AS "d" FROM "meter_cabinet"'
                     f' WHERE $timeFilter GROUP BY "controller") WHERE $timeFilter AND {_POSSIBLE} GROUP BY time(1d) fill(none)',
                     "energy"),), 12, "Of what was read: see the coverage beside it. Steps that no cabinet can draw are left out."),
        Panel("Coverage: share of quarters with a meter reading", "timeseries", "15m", "percentunit",
              (Query('SELECT count("energy_kwh") / 96 FROM "meter_cabinet"'
                     ' WHERE $timeFilter GROUP BY time(1d), "controller" fill(0)', "$tag_controller"),), 12,
              "By days; what was not read is unknown, not saved. The last day is not over."),
        Panel("Energy by cabinet", "table", "1d", "kwatth",
              (Query('SELECT sum("d") AS "energy" FROM (SELECT difference("energy_kwh") AS "d" FROM "meter_cabinet"'
                     f' WHERE $timeFilter GROUP BY "controller") WHERE $timeFilter AND {_POSSIBLE} GROUP BY "controller"'),)),
        Panel("Last meter reading by cabinet", "table", "15m", "kwatth",
              (Query('SELECT last("energy_kwh") AS "counter" FROM "meter_cabinet"'
                     ' WHERE $timeFilter GROUP BY "controller"'),), 12, "Its time tells the age of the figures beside it."),
        Panel("Power factor, lowest", "timeseries", "15m", "short",
              (Query(f'SELECT min("power_factor") FROM "meter_cabinet" WHERE $timeFilter {BY_TIME} fill(none)',
                     "power factor"),)),
        Panel("Reactive power", "timeseries", "15m", "voltampreact",
              (Query(f'SELECT sum("reactive_power_var") FROM "meter_cabinet" WHERE $timeFilter {BY_TIME} fill(none)',
                     "reactive"),)),
        Panel("Power, by quarters", "timeseries", "15m", "watt",
              (Query('SELECT sum("power_w") FROM "meter_cabinet" WHERE $timeFilter GROUP BY time(15m) fill(none)',
                     "power"),)),
    ),
    since="now-30d",
)  # fmt: skip
RAIN = Board(
    "duha-rain", "Rain",
    (
        Panel("Rain of each gauge", "timeseries", "1d", "lengthmm",
              (Query(f'SELECT sum("rain_mm") FROM "rain" WHERE $timeFilter AND "quality" != \'missing\' {BY_TIME}, "device" fill(none)',
                     "$tag_device"),), 24, "Judged, corrected and filled."),
        Panel("Raw and used", "timeseries", "1d", "lengthmm",
              (Query(f'SELECT sum("raw_mm") FROM "rain" WHERE "device" = \'$gauge\' AND $timeFilter {BY_TIME} fill(none)', "raw"),
               Query(f'SELECT sum("rain_mm") FROM "rain" WHERE "device" = \'$gauge\' AND "quality" != \'missing\' AND $timeFilter {BY_TIME} fill(none)', "used"))),
        Panel("Quality", "timeseries", "1d", "percentunit",
              (Query(f'SELECT mean("quality_index") FROM "rain" WHERE $timeFilter {BY_TIME}, "device" fill(none)',
                     "$tag_device"),)),
        Panel("Sums by gauge", "table", "1d", "lengthmm",
              (Query('SELECT sum("rain_mm") AS "rain" FROM "rain" WHERE $timeFilter AND "quality" != \'missing\' GROUP BY "device"'),)),
        Panel("Temperature in the gauges", "timeseries", "raw", "celsius",
              (Query(f'SELECT mean("temperature_c") FROM "rain_gauge" WHERE $timeFilter {BY_TIME}, "device" fill(none)',
                     "$tag_device"),)),
    ),
    (GAUGE,),
)  # fmt: skip
RUNOFF = Board(
    "duha-runoff", "Runoff",
    (
        Panel("Outflow and flooding", "timeseries", "15m", "short",
              (Query(f'SELECT max("outflow_l_s") FROM "model" WHERE "device" = \'$model\' AND $timeFilter {BY_TIME} fill(none)', "outflow [L/s]"),
               Query(f'SELECT max("flooding_l_s") FROM "model" WHERE "device" = \'$model\' AND $timeFilter {BY_TIME} fill(none)', "flooding [L/s]")), 24),
        Panel("Depth", "timeseries", "15m", "lengthm",
              (Query(f'SELECT max("depth_m") FROM "node" WHERE "device" = \'$node\' AND $timeFilter {BY_TIME} fill(none)', "$node"),)),
        Panel("Highest nodes", "table", "15m", "lengthm",
              (Query('SELECT max("depth_m") AS "depth" FROM "node" WHERE "controller" = \'$model\' AND $timeFilter GROUP BY "device"'),)),
        Panel("Load of the pipes", "table", "15m", "percentunit",
              (Query('SELECT max("filling") AS "filling" FROM "conduit" WHERE "controller" = \'$model\' AND $timeFilter GROUP BY "device"'),)),
        Panel("Runoff of the catchments", "timeseries", "15m", "short",
              (Query(f'SELECT max("runoff_l_s") FROM "catchment" WHERE $timeFilter {BY_TIME}, "device" fill(none)',
                     "$tag_device"),), 12, "By the model that is always on [L/s]."),
    ),
    (MODEL, NODE),
)  # fmt: skip
FLEET = Board(
    "duha-fleet", "Fleet health",
    (
        Panel("Readings a minute by cabinet", "timeseries", "raw", "short",
              (Query('SELECT count("quality") FROM "luminaire" WHERE $timeFilter GROUP BY time(1m), "controller" fill(none)',
                     "$tag_controller"),), 24),
        Panel("Luminaires that did not answer", "timeseries", "raw", "short",
              (Query(f'SELECT count("quality") FROM "luminaire" WHERE $timeFilter AND "quality" = \'no_answer\' {BY_TIME}, "controller" fill(none)',
                     "$tag_controller"),), limit=1),
        Panel("Switched on, by luminaire", "table", "raw", "short",
              (Query('SELECT spread("switch_ons") AS "switched" FROM "luminaire" WHERE $timeFilter GROUP BY "device"'),)),
        Panel("Burning hours", "table", "raw", "h",
              (Query('SELECT last("burning_h") AS "hours" FROM "luminaire" WHERE $timeFilter GROUP BY "device"'),)),
        Panel("Answered, by cabinet", "timeseries", "15m", "percentunit",
              (Query(f'SELECT mean("answered") / mean("devices") FROM "luminaire_cabinet" WHERE $timeFilter {BY_TIME}, "controller" fill(none)',
                     "$tag_controller"),)),
    ),
)  # fmt: skip
INGEST = Board(
    "duha-ingest", "Ingest",
    (
        *(
            Panel(f"Rows of {kind} a minute", "timeseries", "raw", "short",
                  (Query(f'SELECT count("quality") FROM "{kind}" WHERE $timeFilter GROUP BY time(1m) fill(none)', kind),))
            for kind in ("luminaire", "meter", "rain_gauge")
        ),
        Panel("Devices heard of", "stat", "raw", "short",
              (Query('SELECT count("v") FROM (SELECT last("quality") AS "v" FROM "luminaire" WHERE $timeFilter GROUP BY "device")'),)),
    ),
    since="now-6h",
)  # fmt: skip
BOARDS = (CITY, CABINETS, ENERGY, RAIN, RUNOFF, FLEET, INGEST)


class Rule(NamedTuple):
    """An alert: it fires when the last value of a query is over (or under) a limit."""

    uid: str
    title: str
    source: Source
    query: str
    over: bool
    limit: float
    minutes: int
    summary: str


RULES = (
    Rule("duha-silent", "No readings arrive", "raw",
         'SELECT count("quality") FROM "luminaire" WHERE $timeFilter', False, 1, 10,
         "No reading of a luminaire within ten minutes."),
    Rule("duha-lamps", "Lamp failures", "raw", _last("luminaire", "lamp_failure", "sum"),
         True, 0, 15, "Luminaires report that their lamp has failed."),
    Rule("duha-heavy-rain", "Heavy rain", "raw",
         'SELECT max("v") FROM (SELECT sum("rain_mm") AS "v" FROM "rain_gauge" WHERE $timeFilter GROUP BY "device")',
         True, 10, 1, "More than 10 mm within ten minutes at one gauge."),
    Rule("duha-flooding", "Sewers overflow onto streets", "15m",
         'SELECT max("flooding_l_s") FROM "model" WHERE $timeFilter', True, 0, 1,
         "A runoff model says that manholes overflow."),
)  # fmt: skip
