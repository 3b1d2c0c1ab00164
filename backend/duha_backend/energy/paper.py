"""An energy report on paper: a page or two of PDF with its method stated."""

import datetime as dt
import math
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
    unknown: str
    terms: dict[str, str]


WORDS: dict[str, Words] = {
    "en": Words(
        "Energy of public lighting",
        ("Period", "Part", "Lamps", "Used kWh", "Baseline kWh", "Saved kWh", "±", "Saved %", "Unknown kWh", "Cost", "Saved", "CO₂ kg", "Data %"),
        "Method: quarters of an hour of each luminaire, counted between readings of its counter, else calculated as power curve of its type × the level that was read back. Saving = baseline less used energy of the same luminaires and the same quarters. What was not read is unknown (from nothing to the value given), never saved; coverage (Data %) is the share of the lamp-hours with light due that was read; below 90 % a sum does not stand for the whole. ± is the uncertainty of the saving: limits of common errors added up, three standard deviations of the others. Luminaires without a type, or that no controller reads, are in no sum: {excluded}. Gap = meter less luminaires less the cabinet's own load.",
        "Calculated with",
        "Used (dark) and saved (green) energy; * of too little data",
        "no nights have been settled in this span",
        ".",
        "unknown",
        {},
    ),
    "cs": Words(
        "Energie veřejného osvětlení",
        ("Období", "Část", "Světel", "Spotřeba kWh", "Základ kWh", "Úspora kWh", "±", "Úspora %", "Neznámo kWh", "Náklady", "Ušetřeno", "CO₂ kg", "Data %"),
        "Metoda: čtvrthodiny každého svítidla, změřené mezi odečty jeho počítadla, jinak vypočtené jako výkonová křivka typu × přečtená úroveň. Úspora = základ minus spotřeba týchž svítidel v týchž čtvrthodinách. Co nebylo přečteno, je neznámé (od nuly po uvedenou hodnotu), nikdy ušetřené; pokrytí (Data %) je podíl přečtených svítidlohodin, v nichž se má svítit; pod 90 % součet neplatí za celek. ± je nejistota úspory: meze společných chyb sečtené a tři směrodatné odchylky ostatních. Svítidla bez typu a ta, která žádná řídicí jednotka nečte, nejsou v žádném součtu: {excluded}. Rozdíl = elektroměr minus svítidla minus vlastní spotřeba rozvaděče.",
        "Počítáno s",
        "Spotřebovaná (tmavě) a ušetřená (zeleně) energie; * z příliš malého množství dat",
        "v tomto období není vyúčtována žádná noc",
        ",",
        "neznámo",
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
    pdf.multi_cell(0, 4.5, method(lines, language), new_x="LMARGIN", new_y="NEXT")
    for one in terms:
        pdf.multi_cell(0, 4.5, f"{words.reckoned}: {_terms(one, words)}", new_x="LMARGIN", new_y="NEXT")  # fmt: skip
    return bytes(pdf.output())


def method(lines: Sequence[Line], language: str) -> str:
    """The method of a report in words, with the luminaires that are in none of its sums."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.part] = max(counts.get(line.part, 0), line.excluded_lamps or 0)
    return WORDS[language].method.format(excluded=sum(counts.values()))


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
            label = (line.part or line.period) + (" *" if line.partial else "")
            pdf.cell(step, 4, label, align="C")
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
            for text in _cells(line, words):
                row.cell(text)


def _cells(line: Line, words: Words) -> list[str]:
    mark = " *" if line.partial else ""
    share = line.share
    unknown = line.unknown_high_kwh
    return [
        line.period,
        line.part or "–",
        str(line.lamps),
        _said(line.kwh, words, 1),
        _said(line.baseline_kwh, words, 1),
        _said(line.saved_kwh, words, 1) + mark,
        _said(line.saved_uncertainty_kwh, words, 1),
        _said(None if share is None else 100 * share, words, 1) + mark,
        words.unknown if unknown is None else f"0–{_said(unknown, words, 1)}",
        *(_said(x, words, 0) for x in (line.cost, line.saved_cost, line.co2_kg)),
        words.unknown if line.covered is None else _said(math.floor(100 * line.covered), words, 0),
    ]  # fmt: skip


def _said(value: float | None, words: Words, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace(".", words.decimal)
