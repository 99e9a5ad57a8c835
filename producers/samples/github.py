"""issues.opened and pull_request.opened, as GitHub posts them; key = repository."""

import random
from typing import Any

from producers.samples.base import Sample, guid, moment, stamp, texts, to_json


def repository_event(rng: random.Random) -> Sample:
    """Return a new issue or, in a third of the cases, a new pull request."""
    is_pull = rng.random() < 1 / 3
    number = rng.randrange(40, 4_000)
    name, subject = _pull_request(rng, number) if is_pull else _issue(rng, number)
    repository = texts("github")["repositories"][name]
    owner = repository["owner"]
    base = f"https://github.com/{owner}/{name}"
    subject["html_url"] = f"{base}/{'pull' if is_pull else 'issues'}/{number}"
    delivery = guid(rng)
    document = {
        "action": "opened",
        **({"number": number, "pull_request": subject} if is_pull else {"issue": subject}),
        "repository": {
            "id": 700_000_000 + sum(name.encode()),
            "name": name,
            "full_name": f"{owner}/{name}",
            "private": False,
            "owner": {"login": owner, "type": "Organization"},
            "html_url": base,
            "description": repository["description"],
            "language": repository["language"],
            "default_branch": "main",
        },
        "sender": {"login": subject["user"]["login"], "type": "User"},
    }
    headers = {
        "x-github-event": "pull_request" if is_pull else "issues",
        "x-github-delivery": delivery,
        "x-github-hook-id": "512300417",
        "user-agent": "GitHub-Hookshot/sample",
    }
    return Sample(delivery, to_json(document), f"{owner}/{name}", f"{name}#{number}: {subject['title']}", headers)


def _common(rng: random.Random, text: dict[str, Any], number: int) -> dict[str, Any]:
    created = stamp(moment(rng))
    return {
        "id": 2_900_000_000 + rng.randrange(10**8),
        "number": number,
        "state": "open",
        "title": text["title"],
        "body": text["body"],
        "user": {"login": rng.choice(texts("github")["logins"]), "type": "User"},
        "created_at": created,
        "updated_at": created,
        "closed_at": None,
        "comments": 0,
    }


def _issue(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    issue = rng.choice(texts("github")["issues"])
    return issue["repository"], _common(rng, issue, number) | {
        "labels": [{"name": label} for label in issue["labels"]],
        "assignees": [],
        "author_association": rng.choice(("NONE", "CONTRIBUTOR", "MEMBER")),
    }


def _pull_request(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    pull = rng.choice(texts("github")["pull_requests"])
    return pull["repository"], _common(rng, pull, number) | {
        "draft": False,
        "merged": False,
        "head": {"ref": pull["branch"], "sha": f"{rng.getrandbits(160):040x}"},
        "base": {"ref": "main", "sha": f"{rng.getrandbits(160):040x}"},
        "commits": rng.randrange(1, 9),
        "additions": pull["additions"],
        "deletions": pull["deletions"],
        "changed_files": pull["files"],
    }
