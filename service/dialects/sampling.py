from service.generation import SamplingParams


def temperature_and_top_p(
    temperature: float | None, top_p: float | None, defaults: SamplingParams
) -> tuple[float, float]:
    """Returns the client's values, or the defaults. A `top_p` of 0 keeps only the likeliest token, which is greedy
    decoding."""
    if temperature is None:
        temperature = defaults.temperature
    if top_p is None:
        top_p = defaults.top_p
    return (0.0, 1.0) if top_p == 0 else (temperature, top_p)
