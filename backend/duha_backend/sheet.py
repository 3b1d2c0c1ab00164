"""A sheet of paper: PDF with fonts that know Czech, begun the same way by every report."""

from pathlib import Path

from fpdf import FPDF

FONTS = Path(__file__).parent / "page" / "vendor"
INK, DIM = (34, 38, 46), (120, 126, 138)


def landscape(title: str, language: str) -> FPDF:
    """A document of A4 in landscape, without a page yet.

    Parameters
    ----------
    title, language : str
        Its title, and the language of its words.
    """
    pdf = FPDF(orientation="landscape", format="A4")
    pdf.set_lang(language)
    pdf.set_title(title)
    pdf.add_font("DejaVu", "", FONTS / "DejaVuSans.ttf")
    pdf.add_font("DejaVu", "B", FONTS / "DejaVuSans-Bold.ttf")
    pdf.set_text_color(*INK)
    return pdf
