from agents import Agent, Runner, function_tool, set_tracing_disabled
from tools import QUESTION, TIMES, count, save

set_tracing_disabled(True)
agent = Agent(name="helper", model="gpt-5", tools=[function_tool(save), function_tool(count)])
for _ in range(TIMES):
    print(Runner.run_sync(agent, QUESTION).final_output)
