"""Results as one HTML page that needs nothing else: verdicts, timelines, whose VRAM was whose, which path accesses took."""

from __future__ import annotations

import html as markup
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from vfio_user_xe.emulator.fabric.ledger import CONTROL, DEVICE_LINK, KERNEL, STALE
from vfio_user_xe.emulator.model.options import format_size
from vfio_user_xe.emulator.scenarios.output import plain
from vfio_user_xe.emulator.scenarios.run import Event, Run
from vfio_user_xe.emulator.scenarios.scenario import EXPECTED_FAIL, FAIL, NOT_APPLICABLE, PASS, Result, Suite

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --good: #2a7d3b; --bad: #b3261e; --warn: #9a6700; --dim: #6b7280; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: .3em; } h2 { font-size: 1.05em; margin: 0; display: inline; } h3 { font-size: .92em; margin: 1.4em 0 .35em; }
a { color: inherit; text-decoration-color: var(--line); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .25em .6em; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: .85em; color: var(--dim); } .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.why { font-size: .9em; overflow-wrap: anywhere; } .mono, pre { font-family: ui-monospace, monospace; font-size: 12px; }
.all > tbody > tr > td:nth-child(2) { width: 30%; }
details { margin: .5em 0; } summary { cursor: pointer; } .run { border: 1px solid var(--line); border-radius: 8px; padding: .6em 1em; }
.run[open] { padding-bottom: 1.2em; } .run details > summary { font-size: .92em; font-weight: 600; }
pre { background: var(--soft); padding: .6em .8em; overflow: auto; max-height: 30em; border-radius: 4px; margin: .3em 0; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 12em 1fr; gap: .15em 1em; margin: .8em 0; } dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.v { display: inline-block; min-width: 8em; text-align: center; border-radius: 4px; color: #fff; padding: 0 .4em; font-size: .85em; }
.pass { background: var(--good); } .fail { background: var(--bad); } .expected-fail { background: var(--warn); } .not-applicable { background: var(--dim); }
.time { display: grid; grid-template-columns: 5em 5em 1fr 26%; gap: 0 .8em; font-size: 13px; }
.time > * { border-bottom: 1px solid var(--soft); padding: 2px 0; overflow-wrap: anywhere; }
.time .head { color: var(--dim); font-size: .9em; } .time .bad { color: var(--bad); font-weight: 600; }
.track { position: relative; background: linear-gradient(90deg, var(--soft) 1px, transparent 1px) 0 0 / 25% 100%; }
.bar { position: absolute; height: 10px; top: 6px; min-width: 3px; border-radius: 2px; background: var(--dim); }
.bar.good { background: var(--good); } .bar.bad { background: var(--bad); }
.key span { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 0; vertical-align: -1px; border: 1px solid var(--line); } .key { font-size: .9em; } .key b { font-weight: 400; margin-right: 1.4em; }
svg { width: 100%; height: 34px; border: 1px solid var(--line); border-radius: 4px; background: var(--soft); display: block; margin-bottom: .3em; }
.path { display: grid; grid-template-columns: 6em 1fr 6em 15em; align-items: center; gap: .6em; margin: .35em 0; font-size: 13px; }
.node { border: 1px solid var(--line); border-radius: 6px; text-align: center; padding: .3em; font-weight: 600; }
.arrow { position: relative; text-align: center; padding-bottom: 5px; border-bottom: 3px solid var(--dim); }
.arrow::after { content: ""; position: absolute; right: -2px; bottom: -8px; border: 6px solid transparent; border-left: 10px solid var(--dim); border-right: 0; }
.zero-copy .arrow { border-color: var(--good); } .zero-copy .arrow::after { border-left-color: var(--good); }
.legacy .arrow { border-color: #1f77b4; } .legacy .arrow::after { border-left-color: #1f77b4; }
.stale .arrow { border-color: var(--bad); border-bottom-style: dashed; } .stale .arrow::after { border-left-color: var(--bad); }
"""

_OWNERS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
_COUNTED = ("reads", "bytes_read", "writes", "bytes_written", "spans")
_MOST_CHANGES = 40


def html(suite: Suite, results: Sequence[Result]) -> str:
    """The page."""
    ordered = sorted(results, key=lambda result: result.scenario.order)
    counts = Counter(result.verdict for result in ordered)
    kernels = ", ".join(sorted({result.kernel for result in ordered if result.kernel})) or "no kernel ran"
    shown = " ".join(
        f"{_verdict(verdict)} {counts[verdict]}" for verdict in (PASS, FAIL, EXPECTED_FAIL, NOT_APPLICABLE)
    )
    rows = "".join(_row(number, result) for number, result in enumerate(ordered))
    parts = "".join(_section(number, result) for number, result in enumerate(ordered))
    seen = Counter(result.defect for result in ordered if result.defect)
    defects = "".join(
        f"<tr><td class=mono><b>{_text(name)}</b><td>{_text(suite.defects.get(name, ''))}<td class=num>{count}</tr>"
        for name, count in sorted(seen.items())
    )
    heads = "<tr><th>defect<th>what it is<th class=num>scenarios</tr>"
    known = f"<h3>Known defects that were met</h3><table>{heads}{defects}</table>" if defects else ""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_text(suite.name)}: {_text(kernels)}</title><style>{_STYLE}</style>"
        f"<h1>Scenarios “{_text(suite.name)}” on {_text(kernels)}</h1><p>{shown}"
        f" · {sum(result.seconds for result in ordered):.0f} s</p>{known}<h3>Verdicts</h3>"
        f"<table class=all><tr><th>no.<th>scenario<th>verdict<th>why<th class=num>seconds</tr>{rows}</table>"
        f"<h3>Runs</h3>{parts}</html>"
    )


def _row(number: int, result: Result) -> str:
    why = f"<b>{_text(result.defect)}</b> {_text(result.reason)}" if result.defect else _text(result.reason)
    again = f" #{result.repetition}" if result.repetition > 1 else ""
    name = f"<a href='#s{number}'>{_text(result.scenario.title + again)}</a>"
    return (
        f"<tr><td>{_text(result.scenario.number)}<td>{name}<td>{_verdict(result.verdict)}<td class=why>{why}"
        f"<td class=num>{result.seconds:.1f}</tr>"
    )


def _section(number: int, result: Result) -> str:
    scenario, run, details = result.scenario, result.run, result.details
    said = {"Expected": scenario.expected, "Seen": result.reason, "Known defect": result.defect}
    said |= {"Setup": scenario.setup.name, "Kernel": result.kernel}
    for name, (before, after) in details.get("accounts", {}).items():
        left = "the guest was given up" if after is None else "the same" if after == before else format_size(after)
        said[name] = f"{format_size(before)} before, afterwards {left}"
    parts = [
        f"<details class=run id=s{number}{' open' if result.verdict == FAIL else ''}><summary>{_verdict(result.verdict)}"
        f" <h2>{_text(scenario.number)} {_text(scenario.title)}</h2></summary>",
        "<dl>" + "".join(f"<dt>{name}<dd>{_text(text)}" for name, text in said.items() if text) + "</dl>",
    ]
    if run is not None:
        parts.append(_timeline(run.events))
        parts += [_fact(name, run.facts[name], f"<h3>{_text(name)}</h3>") for name in run.shown]
        parts.append(_paths(details))
        parts.append(_memory_map(details.get("vram_map")))
        parts.append(_ownership(details.get("ownership")))
        parts.append(_folded(run, details))
    return "".join(parts) + "</details>"


def _timeline(events: Sequence[Event]) -> str:
    if not events:
        return ""
    whole = max(event.start + event.seconds for event in events) or 1.0
    lines = [
        f"<div class='head num'>from</div><div class='head num'>took</div><div class=head>step</div><div class=head>"
        f"0 to {whole:.1f} s</div>"
    ]
    for event in events:
        colour = {True: "good", False: "bad", None: ""}[event.good]
        left, width = 100 * event.start / whole, 100 * event.seconds / whole
        took = f"{event.seconds:.3f} s" if event.seconds else ""
        lines.append(
            f"<div class=num>{event.start:.3f} s</div><div class=num>{took}</div>"
            f"<div{' class=bad' if event.good is False else ''} style='padding-left:{1.3 * event.depth:.1f}em'>"
            f"{_text(event.text)}</div>"
            f"<div class=track><div class='bar {colour}' style='left:{min(left, 99):.2f}%;width:{width:.2f}%'></div></div>"
        )
    return f"<h3>Timeline</h3><div class=time>{''.join(lines)}</div>"


def _paths(details: dict[str, Any]) -> str:
    """An arrow for each way by which a function reached another's memory."""
    rows = []
    for entry in details.get("ledger", []):
        kind, owner = entry["kind"], entry["owner"]
        if owner in (entry["initiator"], "guest") or kind.startswith(KERNEL) or kind == CONTROL:
            continue
        look = "stale" if kind.startswith(STALE) else "zero-copy" if entry["interconnect"] == DEVICE_LINK else "legacy"
        count = ", ".join(
            f"{entry[name]:,} {name} ({format_size(entry[size])})"
            for name, size in (("reads", "bytes_read"), ("writes", "bytes_written"))
            if entry[name]
        )
        way = (
            "device address" if look == "zero-copy" else "as a PCI device" if look == "legacy" else "stale translation"
        )
        rows.append(
            f"<div class='path {look}'><div class=node>{_text(entry['initiator'])}</div>"
            f"<div class=arrow>{way}: {_text(entry['interconnect'])}, {_text(kind)} page-table entries</div>"
            f"<div class=node>{_text(owner)}</div><div>{_text(count)}</div></div>"
        )
    stale = [
        f"<p><span class='v fail'>stale</span> {_text(s['reason'])}: {_text(s['initiator'])} to {_text(s['owner'])} over"
        f" {_text(s['interconnect'])}, {s['reads']} reads, {s['writes']} writes{_after(s)}</p>"
        for s in details.get("verdicts", {}).get("stale", [])
    ]
    if not rows and not stale:
        return ""
    return f"<h3>Paths that accesses between functions took</h3>{''.join(rows)}{''.join(stale)}"


def _after(stale: dict[str, Any]) -> str:
    after = stale.get("after")
    return f"; over a path that was opened {after:.3f} s after the reset began" if after is not None else ""


def _memory_map(found: dict[str, Any] | None) -> str:
    """A strip as long as VRAM, a colour for each owner, and where owners' addresses lead."""
    if not found or not found.get("vfs"):
        return ""
    size = found["size"]
    boxes, key, rows = [], ["<span></span><b>pf</b>"], []
    for index, (owner, ranges) in enumerate(found["vfs"].items()):
        colour = _OWNERS[index % len(_OWNERS)]
        total = format_size(sum(part["size"] for part in ranges))
        key.append(f"<span style='background:{colour}'></span><b>{_text(owner)} ({total})</b>")
        for part in ranges:
            title = f"{owner}: GDPA {part['gdpa']:#x} is DPA {part['dpa']:#x}, {format_size(part['size'])}"
            boxes.append(
                f"<rect x='{1000 * part['dpa'] / size:.3f}' width='{max(0.5, 1000 * part['size'] / size):.3f}' height='34'"
                f" fill='{colour}'><title>{_text(title)}</title></rect>"
            )
            rows.append(
                f"<tr><td>{_text(owner)}<td class='num mono'>{part['gdpa']:#x}<td class='num mono'>{part['dpa']:#x}"
                f"<td class=num>{format_size(part['size'])}</tr>"
            )
    strip = f"<svg viewBox='0 0 1000 34' preserveAspectRatio='none'>{''.join(boxes)}</svg>"
    heads = "<tr><th>owner<th class=num>GDPA<th class=num>DPA<th class=num>size</tr>"
    table = f"<details><summary>Where owners' addresses lead: {len(rows)} ranges</summary><table>{heads}{''.join(rows)}</table></details>"
    return f"<h3>VRAM by owner at the end, {format_size(size)}</h3>{strip}<div class=key>{' '.join(key)}</div>{table}"


def _ownership(found: dict[str, Any] | None) -> str:
    """What changed hands, and resets, in the ledger's time."""
    if not found or not (found.get("changes") or found.get("resets")):
        return ""
    rows = [
        (c["time"], f"{format_size(c['length'])} from DPA {c['address']:#x} on: {c['old']} → {c['new']}")
        for c in found.get("changes", [])
    ]
    for reset in found.get("resets", []):
        ended = "lasts" if reset["ended"] is None else f"took {reset['ended'] - reset['began']:.3f} s"
        rows.append((reset["began"], f"reset of {reset['owner']}, {ended}"))
    rows.sort()
    hidden = f"<p>and {len(rows) - _MOST_CHANGES} more</p>" if len(rows) > _MOST_CHANGES else ""
    lines = "".join(f"<tr><td class=num>{time:.3f} s<td>{_text(text)}</tr>" for time, text in rows[:_MOST_CHANGES])
    title = f"Owners that changed and resets: {len(rows)}"
    return f"<details><summary>{title}</summary><table><tr><th class=num>card's time<th>what</tr>{lines}</table>{hidden}</details>"


def _folded(run: Run, details: dict[str, Any]) -> str:
    parts = [
        f"<details><summary>{_text(name)}</summary>{_fact(name, value)}</details>"
        for name, value in run.facts.items()
        if name not in run.shown
    ]
    entries = details.get("ledger", [])
    if entries:
        names = ("initiator", "owner", "interconnect", "kind")
        parts.append(f"<details><summary>Ledger</summary>{_table(entries, names, _COUNTED)}</details>")
    if run.kernel_log:
        log = _text("\n".join(run.kernel_log))
        parts.append(f"<details><summary>Kernel log: {len(run.kernel_log)} lines</summary><pre>{log}</pre></details>")
    return "".join(parts)


def _fact(name: str, value: Any, head: str = "") -> str:
    """A fact: a table when it is a list of like rows, one line when it is short, else as it is."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return head + _table(value, tuple(value[0]), ())
    text = plain(value)
    if head and "\n" not in text:
        return f"<dl><dt>{_text(name)}<dd>{_text(text)}</dl>"
    return f"{head}<pre>{_text(text)}</pre>"


def _table(rows: Iterable[dict[str, Any]], names: Sequence[str], counts: Sequence[str]) -> str:
    heads = "".join(f"<th>{_text(name)}" for name in names)
    heads += "".join(f"<th class=num>{name.replace('_', ' ')}" for name in counts)
    lines = "".join(
        "<tr>"
        + "".join(f"<td class=mono>{_text(_cell(row.get(name)))}" for name in names)
        + "".join(f"<td class=num>{row[name]:,}" for name in counts)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{heads}</tr>{lines}</table>"


def _cell(value: Any) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and value > 4096 else str(value)


def _verdict(verdict: str) -> str:
    return f"<span class='v {verdict}'>{verdict}</span>"


def _text(value: object) -> str:
    return markup.escape(str(value), quote=True)
