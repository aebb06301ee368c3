"""The fixture's tools and prompt that ask the client and are called again with the answers (SEP-2322)."""

from __future__ import annotations

from typing import Any

from sluiceway.transports.embedded import Context, Elicit, Roots, Sample, Server


def _form(**properties: str) -> dict[str, Any]:
    members = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": members, "required": list(members)}


async def elicitation(ctx: Context) -> str:
    """Ask for a name."""
    answer = await ctx.elicit("What is your name?", _form(name="string"), key="user_name")
    return f"Hello, {answer.content['name']}!" if answer.accepted else "Hello, stranger!"


async def sampling(ctx: Context) -> str:
    """Ask the model for a capital."""
    return (await ctx.sample("What is the capital of France?", 100, key="capital_question")).text


async def list_roots(ctx: Context) -> str:
    """Ask for the roots."""
    return "Roots: " + ", ".join(root.uri for root in await ctx.roots(key="client_roots"))


async def request_state(ctx: Context) -> str:
    """Ask for a confirmation; the state was checked before this ran again."""
    await ctx.elicit("Please confirm", _form(ok="boolean"), key="confirm")
    return "state-ok"


async def multiple_inputs(ctx: Context) -> str:
    """Ask three things at once."""
    name, greeting, roots = await ctx.ask(
        Elicit("What is your name?", _form(name="string"), key="user_name"),
        Sample(("Generate a greeting",), 50, key="greeting"),
        Roots(key="client_roots"),
    )
    return f"{greeting.text} {name.content} ({len(roots)} roots)"


async def multi_round(ctx: Context) -> str:
    """Ask one thing after the other."""
    name = await ctx.elicit("Step 1: What is your name?", _form(name="string"), key="step1")
    color = await ctx.elicit("Step 2: What is your favorite color?", _form(color="string"), key="step2")
    return f"{name.content} likes {color.content}"


async def capabilities(ctx: Context) -> str:
    """Ask only what the client can answer."""
    questions = (
        Elicit("What is your name?", _form(name="string"), key="user_name"),
        Sample(("Generate a greeting",), 50, key="greeting"),
        Roots(key="client_roots"),
    )
    answers = await ctx.ask(*(question for question in questions if ctx.can(question)))
    return f"{len(answers)} answers"


async def prompt(ctx: Context) -> str:
    """Ask for context, then be a prompt."""
    answer = await ctx.elicit("What context should the prompt use?", _form(context="string"), key="user_context")
    return f"Use this context: {answer.content}"


def add_rounds(server: Server) -> None:
    """Register all of them under the names the suite calls."""
    tools = (elicitation, sampling, list_roots, request_state, multiple_inputs, multi_round, capabilities)
    for tool in tools:
        server.tool(name=f"test_input_required_result_{tool.__name__}")(tool)
    server.tool(name="test_input_required_result_tampered_state")(request_state)
    server.prompt(name="test_input_required_result_prompt")(prompt)
