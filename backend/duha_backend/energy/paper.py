"""An energy report on paper: a page or two of PDF with its method stated."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

from fpdf import FPDF, FontFace

from duha_backend.energy.book import Line
from duha_backend.lighting.tariff import BEFORE, UNDIMMED
from duha_backend.sheet import DIM, INK, landscape

_SAVED = (70, 140, 90)


class Words(NamedTuple):
    """What a report says, in one language."""

    title: str
    headings: tuple[str, ...]
    method: str
    reckoned: str
    chart: str
    nothing: str
    decimal: str
    terms: dict[str, str]


WORDS: dict[str, Words] = {
    "en": Words(
        "Energy of public lighting",
        ("Period", "Part", "Lamps", "Used kWh", "Baseline kWh", "Saved kWh", "Saved %", "Cost", "Saved", "CO₂ kg", "Data %"),
        "Method: luminaires with a counter as counted, others as power curve of their type × level × time, by quarters of an hour. Saving = baseline less used energy. Gap = meter less luminaires less the cabinet's own load.",
        "Reckoned with",
        "Used (dark) and saved (green) energy",
        "no nights have been settled in this span",
        ".",
        {},
    ),
    "cs": Words(
        "Energie veřejného osvětlení",
        ("Období", "Část", "Světel", "Spotřeba kWh", "Základ kWh", "Úspora kWh", "Úspora %", "Náklady", "Ušetřeno", "CO₂ kg", "Data %"),
        "Metoda: svítidla s počítadlem podle počítadla, ostatní jako výkonová křivka typu × úroveň × čas, po čtvrthodinách. Úspora = základ minus spotřeba. Rozdíl = elektroměr minus svítidla minus vlastní spotřeba rozvaděče.",
        "Počítáno s",
        "Spotřebovaná (tmavě) a ušetřená (zeleně) energie",
        "v tomto období není vyúčtována žádná noc",
        ",",
        {
            UNDIMMED: "tatáž svítidla bez stmívání od západu do východu slunce",
            BEFORE: "původní svítidla",
            "others undimmed; from sunset to sunrise": (
                "ostatní bez stmívání; od západu do východu slunce"
            ),
        },
    ),
}  # fmt: skip


def report(
    city: str,
    since: dt.date,
    until: dt.date,
    lines: Sequence[Line],
    terms: Sequence[dict[str, Any]],
    language: str = "cs",
) -> bytes:
    """The report as PDF.

    Parameters
    ----------
    city : str
        Its name.
    since, until : date
        The span [dates).
    lines, terms : sequences
        As of `EnergyBook.report` and `EnergyBook.terms`.
    language : {"cs", "en"}
        Of the words.
    """
    words = WORDS[language]
    pdf = landscape(f"{words.title}: {city}", language)
    pdf.add_page()
    pdf.set_font("DejaVu", "B", 16)
    pdf.cell(0, 10, f"{words.title}: {city}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("DejaVu", "", 9)
    last = until - dt.timedelta(days=1)
    pdf.cell(
        0, 6, f"{since:%d. %m. %Y} – {last:%d. %m. %Y}", new_x="LMARGIN", new_y="NEXT"
    )
    pdf.ln(2)
    if lines:
        _chart(pdf, lines, words)
        _table(pdf, lines, words)
    else:
        pdf.cell(0, 8, words.nothing, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(3)
    pdf.set_font("DejaVu", "", 8)
    pdf.set_text_color(*DIM)
    pdf.multi_cell(0, 4.5, words.method, new_x="LMARGIN", new_y="NEXT")
    for one in terms:
        pdf.multi_cell(0, 4.5, f"{words.reckoned}: {_terms(one, words)}", new_x="LMARGIN", new_y="NEXT")  # fmt: skip
    return bytes(pdf.output())


def _terms(one: dict[str, Any], words: Words) -> str:
    price, co2 = one["price_per_kwh"], one["co2_kg_per_kwh"]
    parts = [
        "–" if price is None else f"{price:g} {one['currency']}/kWh",
        "–" if co2 is None else f"{co2:g} kg CO₂/kWh",
    ]
    parts = [part.replace(".", words.decimal) for part in parts]
    baseline = one["baseline"]
    for text, translated in words.terms.items():
        baseline = baseline.replace(text, translated)
    return "; ".join(part for part in (*parts, one["source"], baseline) if part)


def _chart(pdf: FPDF, lines: Sequence[Line], words: Words) -> None:
    """Bars of used and saved energy, a bar for each line."""
    shown = list(lines)[-40:]
    most = max(line.kwh + max(0.0, line.saved_kwh) for line in shown) or 1.0
    left, top, width, height = pdf.l_margin, pdf.get_y() + 4, pdf.epw, 45.0
    step = width / len(shown)
    pdf.set_font("DejaVu", "", 7)
    pdf.cell(0, 4, words.chart, new_x="LMARGIN", new_y="NEXT")
    for n, line in enumerate(shown):
        used = height * line.kwh / most
        saved = height * max(0.0, line.saved_kwh) / most
        x, wide = left + n * step + step * 0.1, step * 0.8
        pdf.set_fill_color(*INK)
        pdf.rect(x, top + height - used, wide, used, style="F")
        pdf.set_fill_color(*_SAVED)
        pdf.rect(x, top + height - used - saved, wide, saved, style="F")
        if step > 14:
            pdf.set_xy(left + n * step, top + height + 1)
            pdf.cell(step, 4, line.part or line.period, align="C")
    pdf.set_xy(left, top + height + 7)


def _table(pdf: FPDF, lines: Sequence[Line], words: Words) -> None:
    pdf.set_font("DejaVu", "", 7.5)
    bold = FontFace(emphasis="BOLD")
    pdf.set_fill_color(255, 255, 255)
    pdf.set_draw_color(*DIM)
    with pdf.table(
        headings_style=bold, line_height=5, text_align="RIGHT",
        borders_layout="HORIZONTAL_LINES",
    ) as table:  # fmt: skip
        heading = table.row()
        for text in words.headings:
            heading.cell(text)
        for line in lines:
            row = table.row()
            for text in _cells(line, words.decimal):
                row.cell(text)


def _cells(line: Line, decimal: str) -> list[str]:
    share = 100 * line.saved_kwh / line.baseline_kwh if line.baseline_kwh else 0.0
    figures = (line.kwh, line.baseline_kwh, line.saved_kwh)
    money = (line.cost, line.saved_cost, line.co2_kg)
    return [
        line.period,
        line.part or "–",
        str(line.lamps),
        *(f"{value:,.1f}".replace(",", " ").replace(".", decimal) for value in figures),
        f"{share:.1f}".replace(".", decimal),
        *(
            "–" if value is None else f"{value:,.0f}".replace(",", " ")
            for value in money
        ),
        f"{100 * line.covered:.0f}",
    ]
