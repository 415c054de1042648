"""The service's concurrent parts under a seeded clock. `loop.py`: the event loop. `engine.py`: the real scheduler on a
counting engine. `store.py`: a shared store that is slow, fails and is cut off. `world.py`: servers, clients and what
must hold. `processes.py`: engine processes that hang and die, `models_world.py`: one server with several of them. A
seed decides everything; `test_simulation.py` names the one that failed.
"""
