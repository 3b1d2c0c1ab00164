"""A comparison of models on paper: a table, the courses, what norms ask; PDF."""

from collections.abc import Sequence

import numpy as np
from fpdf import FPDF, FontFace

from duha_backend.runoff.study import EVERY_MIN, Line, Outcome, compared
from duha_backend.sheet import DIM, INK, landscape

_COLOURS = ((44, 96, 168), (70, 140, 90), (196, 120, 40), (140, 70, 150), (90, 90, 90))
WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Comparison of runoff models", "measure": "Measure", "limit": "Limit",
        "rain_mm": "Rain", "outflow_peak_l_s": "Peak of all outfalls",
        "specific_l_s_ha": "Peak of a hectare", "outflow_m3": "Volume of all outfalls",
        "overflow_m3": "Overflow into the river", "overflow_peak_l_s": "Peak of the overflow",
        "flooded_nodes": "Flooded manholes", "flooding_m3": "Water on the streets",
        "kept_share": "Rain kept on site", "emptying_h": "Rain gardens empty after",
        "chart": "Flow at all outfalls [L/s] over hours", "overflow_chart": "Overflow into the river [L/s] over hours",
        "not_empty": "not empty", "none": "–", "over": "over the limit",
        "method": "Method: EPA SWMM 5.2, the same rain over each model, minute by minute; wet and dry steps of a minute; outfalls that only weirs lead to are overflows. Kept on site: what of the rain never came into the sewer. Limits: 3 L/(s·ha) of TNV 75 9011 (it is meant for single sites), 72 h for emptying.",
        "failed": "failed",
    },
    "cs": {
        "title": "Porovnání modelů odtoku", "measure": "Veličina", "limit": "Mez",
        "rain_mm": "Déšť", "outflow_peak_l_s": "Kulminace všech výustí",
        "specific_l_s_ha": "Kulminace z hektaru", "outflow_m3": "Objem všech výustí",
        "overflow_m3": "Přepad do řeky", "overflow_peak_l_s": "Kulminace přepadu",
        "flooded_nodes": "Zaplavené šachty", "flooding_m3": "Voda na ulicích",
        "kept_share": "Déšť zadržený na místě", "emptying_h": "Dešťové zahrady prázdné za",
        "chart": "Průtok všemi výustmi [L/s] v hodinách", "overflow_chart": "Přepad do řeky [L/s] v hodinách",
        "not_empty": "neprázdné", "none": "–", "over": "nad mezí",
        "method": "Metoda: EPA SWMM 5.2, týž déšť na každý model, po minutách; mokrý i suchý krok jedna minuta; výusti, do nichž vedou jen přelivy, jsou odlehčení. Zadržený na místě: co se z deště do stoky nedostalo. Meze: 3 L/(s·ha) podle TNV 75 9011 (platí pro jednotlivé stavby), vyprázdnění do 72 h.",
        "failed": "selhal",
    },
}  # fmt: skip


def comparison(title: str, outcomes: Sequence[Outcome], language: str = "cs") -> bytes:
    """A comparison as PDF, a page for each rain.

    Parameters
    ----------
    title : str
        What the study is called.
    outcomes : sequence of Outcome
        Of every model under every rain.
    language : {"cs", "en"}
        Of the words.
    """
    words = WORDS[language]
    pdf = landscape(f"{words['title']}: {title}", language)
    for rain in dict.fromkeys(outcome.rain for outcome in outcomes):
        _page(
            pdf, title, [o for o in outcomes if o.rain == rain], rain, words, language
        )
    return bytes(pdf.output())


def _page(
    pdf: FPDF, title: str, mine: list[Outcome], rain: str, words: dict[str, str],
    language: str,
) -> None:  # fmt: skip
    pdf.add_page()
    pdf.set_text_color(*INK)
    pdf.set_font("DejaVu", "B", 16)
    pdf.cell(0, 10, f"{words['title']}: {title}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("DejaVu", "", 10)
    pdf.cell(0, 6, rain, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(2)
    _table(pdf, mine, compared(mine, rain), words, language)
    good = [outcome for outcome in mine if not outcome.problem]
    if good:
        top = pdf.get_y() + 8
        _chart(pdf, good, 10, top, words["chart"], [_whole(o) for o in good])
        _chart(
            pdf, good, 150, top, words["overflow_chart"], [_overflow(o) for o in good]
        )
        pdf.set_y(top + 62)
    pdf.set_font("DejaVu", "", 7.5)
    pdf.set_text_color(*DIM)
    pdf.set_x(10)
    pdf.multi_cell(0, 4, words["method"], new_x="LMARGIN", new_y="NEXT")


def _table(
    pdf: FPDF,
    mine: list[Outcome],
    lines: list[Line],
    words: dict[str, str],
    language: str,
) -> None:
    pdf.set_font("DejaVu", "", 8.5)
    bold = FontFace(emphasis="BOLD")
    widths = (70, *[36] * len(mine), 30)
    with pdf.table(
        width=min(277, sum(widths)), col_widths=widths, align="L", line_height=5.4,
        text_align=("LEFT", *["RIGHT"] * (len(mine) + 1)), headings_style=bold,
    ) as table:  # fmt: skip
        row = table.row()
        for text in (words["measure"], *[o.model for o in mine], words["limit"]):
            row.cell(text)
        for line in lines:
            row = table.row()
            row.cell(f"{words[line.name]} {f'[{line.unit}]' if line.unit else ''}")
            for outcome, value in zip(mine, line.values, strict=True):
                row.cell(_value(outcome, line, value, words, language))
            row.cell("" if line.limit is None else f"{line.limit:g}")


def _value(
    outcome: Outcome,
    line: Line,
    value: float | None,
    words: dict[str, str],
    language: str,
) -> str:
    if outcome.problem:
        return words["failed"]
    if value is None:
        return words["not_empty"] if outcome.not_empty else words["none"]
    text = f"{value:,.1f}" if line.name != "flooded_nodes" else f"{value:d}"
    if language == "cs":
        text = text.replace(",", "\u202f").replace(".", ",")
    over = line.limit is not None and value > line.limit
    return f"{text} ▲" if over else text


def _whole(outcome: Outcome) -> list[float]:
    found: list[float] = np.sum(list(outcome.outfalls.values()), axis=0).tolist()
    return found


def _overflow(outcome: Outcome) -> list[float]:
    flows = [outcome.outfalls[name] for name in outcome.overflows]
    found: list[float] = np.sum(flows, axis=0).tolist() if flows else []
    return found


def _chart(
    pdf: FPDF,
    mine: list[Outcome],
    x: float,
    y: float,
    title: str,
    courses: list[list[float]],
) -> None:
    """Courses as lines, up to where nothing changes any more."""
    width, height = 125.0, 42.0
    most = max((max(course, default=0.0) for course in courses), default=0.0)
    pdf.set_text_color(*INK)
    pdf.set_font("DejaVu", "B", 8.5)
    pdf.text(x, y, title)
    pdf.set_font("DejaVu", "", 7)
    if most <= 0:
        return
    longest = max(_lasting(course, most) for course in courses)
    hours = max(1.0, longest * EVERY_MIN / 60)
    pdf.set_draw_color(*DIM)
    pdf.set_line_width(0.2)
    bottom = y + 4 + height
    pdf.line(x + 12, bottom, x + width, bottom)
    for share in (0.5, 1.0):
        level = bottom - share * height
        pdf.set_draw_color(220, 224, 230)
        pdf.line(x + 12, level, x + width, level)
        pdf.text(x, level + 1, f"{most * share:.0f}")
    for share in (0.0, 0.5, 1.0):
        pdf.text(x + 12 + share * (width - 14), bottom + 4, f"{hours * share:.1f} h")
    pdf.set_line_width(0.5)
    for number, (outcome, course) in enumerate(zip(mine, courses, strict=True)):
        pdf.set_draw_color(*_COLOURS[number % len(_COLOURS)])
        points = [
            (
                x + 12 + i / max(1, longest) * (width - 12),
                bottom - value / most * height,
            )
            for i, value in enumerate(course[: longest + 1])
        ]
        if len(points) > 1:
            pdf.polyline(points)
        left = x + 12 + number * 30
        pdf.line(left, bottom + 7.5, left + 5, bottom + 7.5)
        pdf.text(left + 6, bottom + 8.5, outcome.model[:16])


def _lasting(course: list[float], most: float) -> int:
    """Up to where a course is worth drawing."""
    lively = [i for i, value in enumerate(course) if value > 0.02 * most]
    return max(lively, default=0) + 6
