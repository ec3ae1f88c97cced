"""What a migration did and found, as a page: Markdown, and HTML that needs nothing beside it."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Sequence as Seq
from pathlib import Path

from lemni.migrate.checks import Check
from lemni.migrate.how import How
from lemni.migrate.migration import Outcome
from lemni.migrate.plots import pictures

_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .25rem .6rem; text-align: left }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto } svg { max-width: 100%; height: auto }"""
_LIVE = "## While the system is written to"


def write_report(outcome: Outcome, how: How) -> list[Path]:
    """`report.md` and `report.html` in the migration's folder, or where `how` says. Sets `Outcome.reports` too."""
    files = _files(outcome, how)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    _write(files, markdown(outcome, how), outcome)
    outcome.reports = list(files)
    return outcome.reports


def add_live(outcome: Outcome, how: How) -> None:
    """The notes of `live` into the report, if there is one."""
    files = _files(outcome, how)
    if not files[0].exists():
        return
    sections = re.split(r"(?m)^(?=## )", files[0].read_text("utf-8"))
    kept = [one.rstrip() for one in sections if not one.startswith(_LIVE)]
    journal = next((at for at, one in enumerate(kept) if one.startswith("## Journal")), len(kept))
    kept.insert(journal, f"{_LIVE}\n\n" + "\n".join(live(outcome, how)))
    _write(files, "\n\n".join(kept) + "\n", outcome)


def _files(outcome: Outcome, how: How) -> tuple[Path, Path]:
    base = outcome.places.folder / "report" if how.report is None else Path(how.report)
    base = base.with_suffix("") if base.suffix in (".md", ".html") else base
    return base.with_name(f"{base.name}.md"), base.with_name(f"{base.name}.html")


def _write(files: tuple[Path, Path], text: str, outcome: Outcome) -> None:
    files[0].write_text(text, "utf-8")
    files[1].write_text(page(text, pictures(outcome.state.results.get("samples", {}))), "utf-8")


def markdown(outcome: Outcome, how: How) -> str:
    """The report."""
    places, state = outcome.places, outcome.state
    blocks = [f"# {subject(outcome)}: {verdict(outcome)}"]
    rows = [("from", places.source_name), ("to", str(places.target)), ("model", outcome.model)]
    kept = state.results
    rows += kept.get("rows", {}).items()
    rows += [(f"{name}, s", f"{seconds:.1f}") for name, seconds in kept.get("seconds", {}).items()]
    blocks.append(_table(("", ""), rows))
    if checks := [Check(**one) for one in kept.get("checks", [])]:
        words = {True: "passed", False: "FAILED", None: "to know"}
        table = [(one.name, words[one.passed], one.found, one.wanted) for one in checks]
        blocks += ["## Verification", _table(("check", "result", "found", "wanted"), table)]
    blocks += ["## What was done", "\n".join(f"- {line}" for line in outcome.said) or "- nothing"]
    if lines := commands(outcome, how):
        blocks += ["## Commands", "\n\n".join(f"{what}:\n\n```\n{line}\n```" for what, line in lines)]
    if how.dual_write:
        blocks += [_LIVE, "\n".join(live(outcome, how))]
    if state.history:
        blocks += ["## Journal", "\n".join(f"- {one['at']} {one['step']}" for one in state.history)]
    return "\n\n".join(blocks) + "\n"


def subject(outcome: Outcome) -> str:
    """The name that `verdict` is about."""
    state = outcome.state
    return state.alias if state.phase == "undone" and state.alias else state.new


def verdict(outcome: Outcome) -> str:
    """In a few words."""
    if not outcome.ok:
        return "verification FAILED, not switched"
    phase = outcome.state.phase
    words = {"switched": "switched", "dropped": "switched, old collection removed", "undone": "rolled back"}
    return words.get(phase, "verified, not switched" if outcome.state.verified else phase)


def commands(outcome: Outcome, how: How) -> list[tuple[str, str]]:
    """What each is for, and the line."""
    phase = outcome.state.phase
    lines = []
    if phase == "switched":
        lines += [("Back to the old collection", _command(outcome, how, "--rollback"))]
    elif phase != "dropped":
        lines += [("Go on, and switch", _command(outcome, how))]
    other = outcome.places.alias is None or outcome.state.alias is not None  # nothing that could be switched
    if (phase == "switched" or (phase == "verified" and other)) and outcome.places.source is not None:
        lines += [("Remove the old collection", _command(outcome, how, "--drop-old"))]
    if phase == "dropped":
        return lines
    return [
        *lines,
        ("Verify again", _command(outcome, how, "--verify-only")),
        ("Embed what has come since", _command(outcome, how, "--catch-up")),
    ]


def live(outcome: Outcome, how: How) -> list[str]:
    """Notes for a system that is written to while it is migrated."""
    places = outcome.places
    name = places.alias or places.source_name
    return [
        f"1. Embed once and do not switch: `{_command(outcome, how, '--no-switch')}`. {name} serves as before.",
        f"2. From then on let the application write each new or changed entry to both: to {places.source_name} with "
        f"the old model, and to {outcome.state.new} with {outcome.model}, under the same id, with the same text and "
        "metadata. Delete in both.",
        f"3. Catch up with what came between: `{_command(outcome, how, '--catch-up')}`. It compares both sides by id, "
        "text and metadata, embeds only what is new or changed, deletes nothing, verifies, and switches if that passes "
        "(--no-switch leaves that out). Entries that were deleted in the old side only are named by the verification.",
        f"4. Point queries to {name} and to the new model in the same release: vectors of two models cannot be "
        "compared.",
        f"5. Keep writing to both until you are sure; `{_command(outcome, how, '--rollback')}` needs an old side that "
        f"is up to date. Then `{_command(outcome, how, '--drop-old')}`.",
        "Without writing to both: catch up shortly before the switch and once after it; what is written between is "
        "late, not lost, as long as the old collection is there.",
    ]


def _command(outcome: Outcome, how: How, *more: str) -> str:
    """The same migration; passwords are not in it."""
    places = outcome.places
    words = ["lemni", "migrate", places.source_name, str(places.target), "--model", outcome.model]
    given = [
        ("--text", how.text),
        ("--id", how.id),
        ("--texts-from", how.texts_from),
        ("--task", how.task),
        ("--dimensions", how.dimensions),
        ("--prompt-name", how.prompt_name),
        ("--input-type", None if how.input_type == "document" else how.input_type),
        ("--metric", how.metric),
        ("--batch", how.batch),
        ("--alias", how.alias),
        ("--folder", how.folder),
    ]
    words += [str(part) for name, value in given if value is not None for part in (name, value)]
    return shlex.join([*words, *(["--skip-missing"] if how.skip_missing else []), *more])


def _table(head: tuple[str, ...], rows: Seq[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + " --- |" * len(head), *map(line, rows)])


def page(text: str, drawn: str) -> str:
    """The Markdown that `markdown` writes, as HTML."""
    body, code, listed = [], False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            body.append("</pre>" if code else "<pre>")
            code = not code
            continue
        if code:
            body.append(html.escape(line))
            continue
        kind = "table" if line.startswith("|") else "ul" if line.startswith("- ") else ""
        if kind != listed:
            body += [f"</{listed}>"] * bool(listed) + [f"<{kind}>"] * bool(kind)
            listed = kind
        if kind == "table":
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            if not all(cell.strip() == "---" for cell in cells):
                body.append(
                    "<tr>"
                    + "".join(f"<td>{_inline(cell.replace(chr(92) + '|', '|'))}</td>" for cell in cells)
                    + "</tr>"
                )
        elif kind == "ul":
            body.append(f"<li>{_inline(line[2:])}</li>")
        elif line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            body.append(f"<h{level}>{_inline(line.lstrip('#'))}</h{level}>")
            if line == "## Verification":
                body.append(drawn)
        elif line:
            body.append(f"<p>{_inline(line)}</p>")
    body += [f"</{listed}>"] * bool(listed)
    title = html.escape(text.partition("\n")[0].lstrip("# "))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text.strip()))
