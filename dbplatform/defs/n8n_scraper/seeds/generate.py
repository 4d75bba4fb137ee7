"""Workflows as they are published for n8n, what their pages say, and how often the scraper tried.

A few are as bad as scraped data is: no title, no address, nodes without a text, views that nobody has.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from ...made_up import NOW, Seed, generate

#: In the order of loading; the last moment of the data; what each profile is filled with.
TABLES = ("workflows", "workflow_node_contexts", "workflow_standalone_docs", "workflow_extraction_snapshots")
NEWEST = ("workflows", "created_at")
SIZES = {"dev": 90, "test": 15, "staging": 3000}

TRIGGERS = {
    "webhook": "When a form is sent",
    "cron": "Every morning",
    "gmailTrigger": "When an e-mail arrives",
    "shopifyTrigger": "When an order comes in",
    "rssFeedReadTrigger": "When an article appears",
}
ACTIONS = {
    "googleSheets": "add a row to a sheet",
    "slack": "tell the team on Slack",
    "notion": "make a page in Notion",
    "airtable": "keep it in Airtable",
    "postgres": "write it to PostgreSQL",
    "openAi": "summarise it",
    "hubspot": "update the contact",
    "telegram": "send a message",
}
STEPS = {
    "if": "goes on only when the field is filled",
    "set": "names the fields",
    "code": "rounds the amounts",
    "httpRequest": "asks the API for the rest",
    "merge": "puts both branches together",
}
WORDS = {**TRIGGERS, **ACTIONS, **STEPS}
CATEGORIES = ("Sales", "Marketing", "Engineering", "Support", "Finance", "AI")


def fill(seed: Seed, size: int) -> None:
    """``size`` workflows of a year and a half."""
    for number, created in enumerate(seed.times(size, days=540), start=1):
        _workflow(
            seed,
            str(1400 + 3 * number),
            created,
            has_title=number != size // 4,
            has_url=number != size // 2,
            has_views=number != size // 3,
        )


def _workflow(
    seed: Seed, workflow_id: str, created: datetime, *, has_title: bool, has_url: bool, has_views: bool
) -> None:
    nodes = [
        seed.one(tuple(TRIGGERS)),
        *(seed.one(tuple(STEPS)) for _ in range(seed.whole(0, 2))),
        seed.one(tuple(ACTIONS)),
    ]
    title = f"{WORDS[nodes[0]]}, {WORDS[nodes[-1]]}"
    layer2 = seed.chance(94)
    layer3 = layer2 and seed.chance(92)
    seed.add(
        "workflows",
        workflow_id=workflow_id,
        title=title if has_title else None,
        url=f"https://n8n.io/workflows/{workflow_id}/" if has_url else None,
        author=" ".join(seed.person()[:2]),
        categories=[seed.one(CATEGORIES)],
        views=int(seed.random.expovariate(1 / 900)) if has_views else 99_999_999,
        metadata={
            "description": f"{title}. " + " ".join(f"{node} {STEPS[node]}." for node in nodes[1:-1]),
            "nodes": len(nodes),
            "complexity": seed.one(("simple", "medium", "advanced")),
        },
        workflow_json=_exported(nodes) if layer2 else None,
        layer2_scraped=layer2,
        layer3_scraped=layer3,
        unified_extraction_success=layer3 and seed.chance(97),
        created_at=created,
        updated_at=seed.after(created, 3600, 900_000),
    )
    if layer3:
        _explanations(seed, workflow_id, created, nodes)
    for layer, succeeded in ((1, True), (2, layer2), (3, layer3)):
        _snapshot(seed, workflow_id, created, layer, succeeded=succeeded, nodes=len(nodes))


def _exported(nodes: list[str]) -> dict[str, object]:
    """The nodes in a row, as n8n exports them."""
    names = [f"{node} {place}" for place, node in enumerate(nodes, start=1)]
    return {
        "nodes": [
            {"name": name, "type": f"n8n-nodes-base.{node}", "typeVersion": 1, "position": [220 * place, 300]}
            for place, (name, node) in enumerate(zip(names, nodes, strict=True), start=1)
        ],
        "connections": {
            name: {"main": [[{"node": following, "type": "main", "index": 0}]]} for name, following in pairwise(names)
        },
    }


def _explanations(seed: Seed, workflow_id: str, created: datetime, nodes: list[str]) -> None:
    """What the page says: a text for each node, and up to two that belong to none."""
    for place, node in enumerate(nodes, start=1):
        seed.add(
            "workflow_node_contexts",
            id=seed.following("workflow_node_contexts"),
            workflow_id=workflow_id,
            workflow_created_at=created,
            node_id=f"{node}-{place}",
            node_type=f"n8n-nodes-base.{node}",
            node_position=[220 * place, 300],
            context=None if seed.chance(1) else f"This node: {WORDS[node]}.",
            created_at=seed.after(created, 3600, 90_000),
        )
    for title in ("Setup", "Good to know")[: seed.whole(0, 2)]:
        number = seed.following("workflow_standalone_docs")
        seed.add(
            "workflow_standalone_docs",
            id=number,
            doc_id=number,
            workflow_id=workflow_id,
            workflow_created_at=created,
            title=title,
            content=f"Connect your {nodes[-1]} account before you run it.",
            created_at=seed.after(created, 3600, 90_000),
        )


def _snapshot(seed: Seed, workflow_id: str, created: datetime, layer: int, *, succeeded: bool, nodes: int) -> None:
    """An attempt of the last nine months: a third of them is old enough for the archive."""
    tried = max(created + timedelta(hours=1), NOW - timedelta(seconds=seed.whole(3600, 270 * 86_400)))
    if tried > NOW or (layer > 1 and seed.chance(30)):
        return
    seed.add(
        "workflow_extraction_snapshots",
        id=seed.following("workflow_extraction_snapshots"),
        workflow_id=workflow_id,
        workflow_created_at=created,
        layer=layer,
        succeeded=succeeded,
        duration_ms=seed.whole(300, 9000),
        payload={"status": 200, "nodes": nodes} if succeeded else {"status": seed.one((404, 429, 500))},
        created_at=tried,
    )


if __name__ == "__main__":
    generate(__file__, fill, tables=TABLES, newest=NEWEST, sizes=SIZES)
