"""The statistics as they stand in a terminal."""

import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.activity import KINDS, Kind, Latency, RecentRequest
from service.cli.figures import count, duration, size, span
from service.stats import EngineNumbers, Stats

NAMES: dict[Kind, str] = {
    "hit": "hits",
    "collapsed": "joined in flight",
    "miss": "misses",
    "bypass": "bypassed",
    "failed": "failed",
}
STYLES = {"hit": "blue", "collapsed": "cyan", "miss": "yellow", "bypass": "bright_black", "failed": "red"}
STATE_STYLES = {"healthy": "green", "loading": "yellow", "degraded": "yellow", "unhealthy": "red"}
TROUBLES = {
    "engine_restarts": ("engine restart", "engine restarts"),
    "tool_call_repairs": ("repair of tool calls", "repairs of tool calls"),
    "tool_calls_cut": ("tool call cut off", "tool calls cut off"),
    "tool_calls_broken": ("unreadable tool call", "unreadable tool calls"),
    "tool_calls_unknown": ("call of an unknown tool", "calls of unknown tools"),
    "tool_calls_mismatched": ("tool call against its schema", "tool calls against their schema"),
}
BARS = " ▁▂▃▄▅▆▇█"
SPEED_SECONDS = 60
DIALECTS = {"openai_chat": "OpenAI", "anthropic_messages": "Anthropic"}


def view(stats: Stats, root: str, *, recent: int) -> RenderableType:
    """One screen, the same every time but for the numbers, with up to `recent` requests."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True, style="bright_black")
    rows.add_column()
    for name, value in _rows(stats, root):
        rows.add_row(name, value)
    shown = stats.recent[:recent]
    return Group(rows, "", _recent(shown)) if shown else rows


def _rows(stats: Stats, root: str) -> list[tuple[str, Text]]:
    cache, latency = stats.cache, stats.latency
    state = Text.assemble(f"{root}: ", (stats.status, STATE_STYLES.get(stats.status, "")))
    state.append(f", up {span(stats.uptime_seconds)}" + (f" ({stats.detail})" if stats.detail else ""))
    return [
        ("Server", state),
        ("Model", Text(stats.model.id)),
        ("Generating", Text(_generating(stats.engine))),
        (
            "Response cache",
            Text.assemble(
                (cache.hit_rate, "bold blue"),
                f" hits: {count(cache.hits)} of {count(cache.total_requests)} requests, "
                f"{count(cache.cached_items)} answers kept",
            ),
        ),
        ("Latency", Text(f"hit {_latency(latency.hit)}, miss {_latency(latency.miss)}")),
        ("Speed", Text(f"{_speed(stats):.1f} tokens/s generated, over the last minute")),
        ("Memory", Text(_memory(stats))),
        ("Requests", _bars(stats)),
        ("", _sums(stats)),
    ]


def _generating(engine: EngineNumbers) -> str:
    """What went wrong is told only where it did."""
    parts = [f"{engine.running} running of {engine.max_concurrency}", f"{engine.waiting} waiting of {engine.max_queue}"]
    troubles = {field: getattr(engine, field) for field in TROUBLES}
    parts += [f"{count(number)} {TROUBLES[field][number > 1]}" for field, number in troubles.items() if number]
    return ", ".join(parts)


def _latency(latency: Latency) -> str:
    return f"{duration(latency.median_seconds)} (95%: {duration(latency.p95_seconds)})"


def _speed(stats: Stats) -> float:
    """Of the slots that are full."""
    timeline = stats.timeline
    slots = round(SPEED_SECONDS / timeline.slot_seconds)
    return sum(timeline.generated_tokens[-1 - slots : -1]) / SPEED_SECONDS


def _memory(stats: Stats) -> str:
    memory = stats.memory
    parts = {
        "process": memory.process_bytes or memory.peak_bytes,
        "engine": memory.engine_bytes,
        "prefix cache": memory.prefix_cache_bytes,
    }
    return ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value is not None)


def _bars(stats: Stats) -> Text:
    """One for each slot of the timeline, with the time that it covers."""
    timeline = stats.timeline
    totals = [sum(slot) for slot in zip(*timeline.outcomes.values(), strict=True)]
    top = max([*totals, len(BARS) - 1])
    bars = "".join(BARS[-(-total * (len(BARS) - 1) // top)] for total in totals)
    return Text.assemble((bars, "blue"), "|")


def _sums(stats: Stats) -> Text:
    outcomes, slots = stats.timeline.outcomes, len(stats.timeline.generated_tokens)
    parts = [Text(f"{count(sum(outcomes[k]))} {NAMES[k]}", style=STYLES[k]) for k in KINDS if any(outcomes[k])]
    sums = Text(", ").join(parts) if parts else Text("none")
    return sums + Text(f" in {span(slots * stats.timeline.slot_seconds)}")


def _recent(requests: list[RecentRequest]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for name in ("Time", "Outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("Total", "First", "Prompt", "Answer"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("API", no_wrap=True)
    for request in requests:
        table.add_row(
            time.strftime("%H:%M:%S", time.localtime(request.came)),
            _outcome(request),
            duration(request.total_seconds),
            duration(request.first_event_seconds),
            count(request.prompt_tokens),
            count(request.completion_tokens),
            DIALECTS.get(request.dialect, request.dialect) + (", streamed" if request.stream else ""),
        )
    return table


def _outcome(request: RecentRequest) -> Text:
    if request.error in ("client_gone", "cancelled"):
        return Text(f"{request.outcome or '-'}, client left", style="bright_black")
    if request.error:
        return Text(f"{request.status} {request.error}", style=STYLES["failed"])
    outcome = request.outcome or ""
    return Text("joined" if outcome == "collapsed" else outcome, style=STYLES.get(outcome, ""))
