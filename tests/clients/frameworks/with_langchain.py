from langchain.agents import create_agent
from tools import QUESTION, TIMES, count, save

agent = create_agent("openai:gpt-5", tools=[save, count])
for _ in range(TIMES):
    print(agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1].content)
