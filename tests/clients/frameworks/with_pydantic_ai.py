from pydantic_ai import Agent
from tools import QUESTION, TIMES, count, save

agent = Agent("openai:gpt-5", tools=[save, count])
for _ in range(TIMES):
    print(agent.run_sync(QUESTION).output)
