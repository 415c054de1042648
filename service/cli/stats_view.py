import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.cli.figures import ANSWERS, REQUESTS, Names, count, counted, duration, size, span
from service.telemetry.activity import Latency, RecentRequest
from service.telemetry.stats import EngineNumbers, Stats
from service.telemetry.timeline import KINDS, Kind

NAMES: dict[Kind, Names] = {
    "hit": ("hit", "hits"),
    "collapsed": ("joined in flight", "joined in flight"),
    "miss": ("miss", "misses"),
    "bypass": ("bypassed", "bypassed"),
    "failed": ("failed", "failed"),
}
STYLES = {"hit": "blue", "collapsed": "cyan", "miss": "yellow", "bypass": "bright_black", "failed": "red"}
STATE_STYLES = {"healthy": "green", "loading": "yellow", "degraded": "yellow", "unhealthy": "red"}
RESTARTS = ("engine restart", "engine restarts")
# Keys are fields of `CallTally`.
TROUBLES = {
    "repaired": ("repair of tool calls", "repairs of tool calls"),
    "cut": ("tool call cut off", "tool calls cut off"),
    "broken": ("unreadable tool call", "unreadable tool calls"),
    "unknown": ("call of an unknown tool", "calls of unknown tools"),
    "mismatched": ("tool call against its schema", "tool calls against their schema"),
    "unclosed": ("tool call in open reasoning", "tool calls in open reasoning"),
    "repeated": ("repeated tool call", "repeated tool calls"),
    "looping": ("answer in a loop", "answers in a loop"),
    "over_budget": ("reasoning cut at its budget", "reasonings cut at their budget"),
    "unanswered": ("answer of reasoning alone", "answers of reasoning alone"),
}
BARS = " ▁▂▃▄▅▆▇█"
NAME_WIDTH = 14
# Columns of the last requests, with the screen width from which each is shown.
COLUMNS = {"Time": 0, "Outcome": 0, "Total": 0, "First": 70, "Prompt": 0, "Answer": 0, "API": 80}
FIGURES = ("Total", "First", "Prompt", "Answer")
DIALECTS = {
    "openai_chat": "OpenAI",
    "openai_completions": "OpenAI completions",
    "openai_embeddings": "OpenAI embeddings",
    "openai_responses": "OpenAI responses",
    "anthropic_messages": "Anthropic",
}


def view(stats: Stats, root: str, *, recent: int, width: int) -> RenderableType:
    """Returns one screen with up to `recent` requests. The layout does not depend on the numbers."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True, style="bright_black", width=NAME_WIDTH)
    rows.add_column()
    for name, value in _rows(stats, root, width - NAME_WIDTH - 2):
        rows.add_row(name, value)
    shown = stats.recent[:recent]
    return Group(rows, "", _recent(shown, width), *_rereads(shown)) if shown else rows


def _rows(stats: Stats, root: str, width: int) -> list[tuple[str, Text]]:
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
                f" hits: {count(cache.hits)} of {counted(cache.total_requests, REQUESTS)}, "
                f"{counted(cache.cached_items, ANSWERS)} kept",
            ),
        ),
        ("Latency", Text(f"hit {_latency(latency.hit)}, miss {_latency(latency.miss)}")),
        ("Speed", Text(f"{stats.speed.generated:.1f} tokens/s generated, {stats.speed.read:.0f} read")),
        ("Memory", Text(_memory(stats))),
        ("Requests", _bars(stats, width)),
        ("", _sums(stats)),
    ]


def _generating(engine: EngineNumbers) -> str:
    parts = [f"{engine.running} running of {engine.max_concurrency}", f"{engine.waiting} waiting of {engine.max_queue}"]
    troubles = [(engine.engine_restarts, RESTARTS)]
    troubles += [(getattr(engine.tool_calls, field), names) for field, names in TROUBLES.items()]
    parts += [counted(number, names) for number, names in troubles if number]
    return ", ".join(parts)


def _latency(latency: Latency) -> str:
    return f"{duration(latency.median_seconds)} (95%: {duration(latency.p95_seconds)})"


def _memory(stats: Stats) -> str:
    memory = stats.memory
    parts = {
        "process": memory.process_bytes or memory.peak_bytes,
        "engine": memory.engine_bytes,
        "prefix cache": memory.prefix_cache_bytes,
    }
    shown = [f"{name} {size(value)}" for name, value in parts.items() if value is not None]
    per_turn = stats.engine.states.bytes_per_turn
    return ", ".join(shown if per_turn is None else [*shown, f"{size(per_turn)} a turn"])


def _bars(stats: Stats, width: int) -> Text:
    totals = [sum(slot) for slot in zip(*stats.timeline.outcomes.values(), strict=True)][-max(1, width - 1) :]
    top = max([*totals, len(BARS) - 1])
    bars = "".join(BARS[-(-total * (len(BARS) - 1) // top)] for total in totals)
    return Text.assemble((bars, "blue"), "|")


def _sums(stats: Stats) -> Text:
    outcomes, slots = stats.timeline.outcomes, len(stats.timeline.generated_tokens)
    parts = [Text(counted(sum(outcomes[k]), NAMES[k]), style=STYLES[k]) for k in KINDS if any(outcomes[k])]
    sums = Text(", ").join(parts) if parts else Text("none")
    return sums + Text(f" in {span(slots * stats.timeline.slot_seconds)}")


def _recent(requests: list[RecentRequest], width: int) -> Table:
    """A narrow screen shows fewer columns. Only the outcome may be cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    columns = [name for name, needed_width in COLUMNS.items() if width >= needed_width]
    for name in columns:
        table.add_column(name, justify="right" if name in FIGURES else "left", no_wrap=name != "Outcome")
    for request in requests:
        cells = _cells(request)
        table.add_row(*(cells[name] for name in columns))
    return table


def _rereads(requests: list[RecentRequest]) -> list[Text]:
    return [
        Text(
            f"{_time(request)}  {count(request.cached_tokens)} tokens reused, "
            f"{count((request.prompt_tokens or 0) - (request.cached_tokens or 0))} read: {request.reread}",
            style="yellow",
        )
        for request in requests
        if request.reread
    ]


def _time(request: RecentRequest) -> str:
    return time.strftime("%H:%M:%S", time.localtime(request.came))


def _cells(request: RecentRequest) -> dict[str, Text]:
    return {
        "Time": Text(_time(request)),
        "Outcome": _outcome(request),
        "Total": Text(duration(request.total_seconds)),
        "First": Text(duration(request.first_event_seconds)),
        "Prompt": Text(count(request.prompt_tokens)),
        "Answer": Text(count(request.completion_tokens)),
        "API": Text(DIALECTS.get(request.dialect, request.dialect)),
    }


def _outcome(request: RecentRequest) -> Text:
    outcome = request.outcome or ""
    text, style = "joined" if outcome == "collapsed" else outcome, STYLES.get(outcome, "")
    if request.error in ("client_gone", "cancelled"):
        text, style = f"{outcome or '-'}, client left", "bright_black"
    elif request.error:
        text, style = f"{request.status} {request.error}", STYLES["failed"]
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
