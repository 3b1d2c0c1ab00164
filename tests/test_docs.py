"""The documents say what is so."""

import json
import re
import string
from pathlib import Path
from typing import get_args

import pytest
from docs import generate

from duha_backend.alarms.kinds import KINDS
from duha_backend.lighting.refusals import SENTENCES
from duha_contract.programmes import Input

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("name", sorted(set(generate.pages()) - {"openapi.json"}))
def test_the_reference_is_current(name):
    text = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert text == generate.pages()[name], "run `make docs`"


def test_the_description_of_the_api_is_current():
    """By path and method: the rest is worded by the framework, and changes with it."""
    kept = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text("utf-8"))
    now = json.loads(generate.pages()["openapi.json"])
    assert _calls(kept) == _calls(now), "run `make docs`"
    assert len(_calls(now)) >= 25


def _calls(document):
    return {
        (path, method) for path, item in document["paths"].items() for method in item
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(
        r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")
    ):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_make_target_that_is_named_exists(page):
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    for named in re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")):
        assert named in targets


def test_both_languages_say_the_same_things_and_the_page_uses_them_all():
    folder = ROOT / "backend" / "duha_backend" / "page"
    ids = {
        name: set(
            re.findall(
                r"^([A-Za-z_0-9-]+) =",
                (folder / "locales" / f"{name}.ftl").read_text("utf-8"),
                re.MULTILINE,
            )
        )
        for name in ("cs", "en")
    }
    assert ids["cs"] == ids["en"]
    source = "".join(
        p.read_text("utf-8")
        for p in [
            *folder.glob("*.js"),
            *folder.glob("views/*.js"),
            folder / "index.html",
        ]
    )
    made = (
        "state-",
        "reason-",
        "target-",
        "override-",
        "legend-",
        "member-",
        "view-",
        "alarm-",
        "order-",
        "severity-",
        "energy-",
        "rollout-",
        "show-",
        "age-",
        "contact-",
        "counter-",
        "day-",
        "span-",
        "by-",
        "gauge-",
        "refusal-",
        "input-",
    )  # put together at run time
    unused = {
        i
        for i in ids["cs"]
        if f"'{i}'" not in source and f'"{i}"' not in source and not i.startswith(made)
    }
    assert unused == set()


def test_the_page_asks_at_once_for_every_module_that_it_begins_with():
    folder = ROOT / "backend" / "duha_backend" / "page"
    found, waiting = set(), [folder / "page.js"]
    while waiting:
        path = waiting.pop().resolve()
        name = path.relative_to(folder).as_posix()
        if name in found or name.startswith("vendor/"):
            found.add(name)
            continue
        found.add(name)
        named = re.findall(
            r"^(?:import|export)\b[^'\"\n]*from '(\.[^']+)'",
            path.read_text("utf-8"),
            re.MULTILINE,
        )
        waiting += [path.parent / one for one in named]
    html = (folder / "index.html").read_text("utf-8")
    asked = set(re.findall(r'="module(?:preload)?" (?:href|src)="([^"]+)"', html))
    own = {name for name in asked if not name.startswith("vendor/fluent/")}
    assert own | {"vendor/fluent/index.js"} == found
    assert "vendor/fluent/index.js" in asked


@pytest.mark.parametrize("language", ["cs", "en"])
def test_what_a_plan_is_refused_for_has_words_on_the_page(language):
    folder = ROOT / "backend" / "duha_backend" / "page" / "locales"
    words = dict(
        re.findall(
            r"^([\w-]+) = (.*)$",
            (folder / f"{language}.ftl").read_text("utf-8"),
            re.MULTILINE,
        )
    )
    fields = {
        name: {field for _, field, *_ in string.Formatter().parse(text) if field}
        for name, (_, text) in SENTENCES.items()
    }
    said = {
        name: set(re.findall(r"\$(\w+)", words[f"refusal-{name}"])) for name in fields
    }
    assert said == fields
    assert {f"input-{name}" for name in get_args(Input)} <= set(words)


def test_every_alarm_has_words_on_the_page():
    text = (
        ROOT / "backend" / "duha_backend" / "page" / "locales" / "cs.ftl"
    ).read_text("utf-8")
    assert [code for code in KINDS if f"\nalarm-{code} = " not in text] == []
