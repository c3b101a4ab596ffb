"""Results as one HTML page that needs nothing else: verdicts, timelines, whose VRAM was whose, which path accesses took."""

from __future__ import annotations

import html as markup
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from emulator.options import format_size
from emulator.scenarios.run import Event
from emulator.scenarios.scenario import EXPECTED_FAIL, FAIL, NOT_APPLICABLE, PASS, Result, Suite

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 0; display: inline; } h3 { font-size: .95em; margin: 1.2em 0 .3em; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .25em .6em; border-bottom: 1px solid var(--line); vertical-align: top; }
.num { text-align: right; font-variant-numeric: tabular-nums; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5em 0; padding: .5em .8em; } summary { cursor: pointer; }
pre { background: var(--soft); padding: .6em; overflow: auto; font-size: 12px; max-height: 28em; }
.v { display: inline-block; min-width: 8.5em; text-align: center; border-radius: 4px; color: #fff; padding: 0 .4em; font-size: .85em; }
.pass { background: #2a7d3b; } .fail { background: #b3261e; } .expected-fail { background: #9a6700; } .not-applicable { background: #6b7280; }
.time { display: grid; grid-template-columns: 5.5em 1fr 24%; gap: 0 .8em; font-size: 13px; } .time > * { border-bottom: 1px solid var(--soft); padding: 1px 0; overflow-wrap: anywhere; }
.track { position: relative; } .bar { position: absolute; height: 9px; top: 6px; min-width: 2px; border-radius: 2px; background: #6b7280; }
.good { background: #2a7d3b; } .bad { background: #b3261e; } .key span { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 1em; vertical-align: -1px; }
svg { width: 100%; height: 34px; border: 1px solid var(--line); border-radius: 4px; }
"""

_OWNERS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
_COUNTED = ("reads", "bytes_read", "writes", "bytes_written", "spans")


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
    seen = sorted({result.defect for result in ordered if result.defect})
    defects = "".join(f"<tr><td><b>{_text(name)}</b></td><td>{_text(suite.defects[name])}</td></tr>" for name in seen)
    known = f"<h3>Known defects that were met</h3><table>{defects}</table>" if defects else ""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_text(suite.name)}: {_text(kernels)}</title><style>{_STYLE}</style>"
        f"<h1>Scenarios “{_text(suite.name)}” on {_text(kernels)}</h1><p>{shown}"
        f" · {sum(result.seconds for result in ordered):.0f} s</p>{known}"
        f"<h3>Verdicts</h3><table><tr><th>no.<th>scenario<th>verdict<th>why<th class=num>seconds</tr>{rows}</table>{parts}</html>"
    )


def _row(number: int, result: Result) -> str:
    why = f"<b>{_text(result.defect)}</b> {_text(result.reason)}" if result.defect else _text(result.reason)
    name = f"<a href='#s{number}'>{_text(result.scenario.title)}</a>"
    return (
        f"<tr><td>{_text(result.scenario.number)}<td>{name}<td>{_verdict(result.verdict)}<td>{why}"
        f"<td class=num>{result.seconds:.1f}</tr>"
    )


def _section(number: int, result: Result) -> str:
    scenario, run = result.scenario, result.run
    opened = " open" if result.verdict == FAIL else ""
    parts = [
        f"<details id=s{number}{opened}><summary>{_verdict(result.verdict)} <h2>{_text(scenario.number)} {_text(scenario.title)}</h2></summary>",
        f"<p>Expected: {_text(scenario.expected)}.<br>Setup: {_text(scenario.setup.name)}."
        f"{f'<br>Seen: {_text(result.reason)}' if result.reason else ''}</p>",
    ]
    if run is not None:
        parts.append(_timeline(run.events))
        parts.append(_memory_map(result.details.get("vram_map")))
        parts.append(_ledger(result.details))
        for name, value in run.facts.items():
            parts.append(f"<h3>{_text(name)}</h3><pre>{_text(_plain(value))}</pre>")
        if run.kernel_log:
            parts.append(f"<h3>Kernel log</h3><pre>{_text(chr(10).join(run.kernel_log))}</pre>")
    return "".join(parts) + "</details>"


def _timeline(events: Sequence[Event]) -> str:
    if not events:
        return ""
    whole = max(event.start + event.seconds for event in events) or 1.0
    lines = []
    for event in sorted(events, key=lambda event: event.start):
        colour = {True: " good", False: " bad", None: ""}[event.good]
        left, width = 100 * event.start / whole, 100 * event.seconds / whole
        lines.append(
            f"<div class=num>{event.start:.3f} s</div><div>{_text(event.text)}</div>"
            f"<div class=track><div class='bar{colour}' style='left:{min(left, 99.5):.2f}%;width:{width:.2f}%'"
            f" title='{event.seconds:.3f} s'></div></div>"
        )
    return f"<h3>Timeline</h3><div class=time>{''.join(lines)}</div>"


def _memory_map(found: dict[str, Any] | None) -> str:
    """A strip as long as VRAM, a colour for each owner."""
    if not found or not found.get("vfs"):
        return ""
    size = found["size"]
    boxes, key = [], ["<span style='background:var(--soft)'></span>pf"]
    for index, (owner, ranges) in enumerate(found["vfs"].items()):
        colour = _OWNERS[index % len(_OWNERS)]
        total = format_size(sum(part["size"] for part in ranges))
        key.append(f"<span style='background:{colour}'></span>{_text(owner)} ({total})")
        for part in ranges:
            title = f"{owner}: GDPA {part['gdpa']:#x} is DPA {part['dpa']:#x}, {format_size(part['size'])}"
            boxes.append(
                f"<rect x='{1000 * part['dpa'] / size:.3f}' width='{max(0.5, 1000 * part['size'] / size):.3f}' height='34'"
                f" fill='{colour}'><title>{_text(title)}</title></rect>"
            )
    strip = f"<svg viewBox='0 0 1000 34' preserveAspectRatio='none'>{''.join(boxes)}</svg>"
    return f"<h3>VRAM, {format_size(size)}, by owner</h3>{strip}<div class=key>{' '.join(key)}</div>"


def _ledger(details: dict[str, Any]) -> str:
    parts = []
    paths = details.get("verdicts", {}).get("paths", [])
    if paths:
        rows = "".join(
            f"<tr><td>{_text(p['initiator'])} → {_text(p['owner'])}<td><b>{_text(p['path'])}</b>"
            f"<td class=num>{p['zero-copy']}<td class=num>{p['legacy']}</tr>"
            for p in paths
        )
        parts.append(
            "<h3>Paths between functions</h3><table><tr><th>who<th>path<th class=num>by device address<th class=num>as a PCI"
            f" device</tr>{rows}</table>"
        )
    for stale in details.get("verdicts", {}).get("stale", []):
        parts.append(f"<p><span class='v fail'>stale</span> {_text(json.dumps(stale))}</p>")
    entries = details.get("ledger", [])
    if entries:
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{_text(e[name])}" for name in ("initiator", "owner", "interconnect", "kind"))
            + "".join(f"<td class=num>{e[name]:,}" for name in _COUNTED)
            + "</tr>"
            for e in entries
        )
        heads = "".join(f"<th class=num>{name.replace('_', ' ')}" for name in _COUNTED)
        parts.append(
            f"<h3>Ledger</h3><table><tr><th>initiator<th>owner<th>interconnect<th>kind{heads}</tr>{rows}</table>"
        )
    return "".join(parts)


def _verdict(verdict: str) -> str:
    return f"<span class='v {verdict}'>{verdict}</span>"


def _plain(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return "\n".join(f"{key}\n{item}" if "\n" in item else f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, indent=1)


def _text(value: object) -> str:
    return markup.escape(str(value), quote=True)
