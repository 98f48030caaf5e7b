#!/usr/bin/python
"""Set and remove keys of the Docker engine's daemon.json, and keep all others.

Runs on the managed machine, on Python 3.6 and later.  Easy to get wrong: a file that cannot be
understood.  It is somebody's configuration, so it is never replaced; the error says where it
breaks.
"""

import base64
import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: daemon_json
short_description: Sets and removes keys of Docker's daemon.json
description:
  - Merges keys into the file, in place and atomically; other keys keep their values and order.
  - A missing or empty file counts as an object without keys. A link is followed.
  - A file that is no JSON object is an error, and stays as it is.
options:
  path:
    description: The file.
    type: path
    default: /etc/docker/daemon.json
  set:
    description: Keys and their new values.
    type: dict
    default: {}
  remove:
    description: Keys to remove. Of these, those in O(set) are set instead.
    type: list
    elements: str
    default: []
  restore:
    description:
      - A RV(original) that this module returned. The file gets that text again, byte for byte; the
        other options are not looked at.
    type: str
author: The Manuka authors
"""

EXAMPLES = r"""
- name: Docker runs on manuka
  daemon_json:
    set:
      experimental: true
      storage-driver: manuka
"""

RETURN = r"""
original:
  description:
    - The file's text before, in base64; null where there was no file.
    - Not as it is, since Ansible takes a text that looks like JSON for what it means.
  type: str
  returned: always
before:
  description: The file's keys before.
  type: dict
  returned: always
after:
  description: The file's keys now.
  type: dict
  returned: always
"""


class Unreadable(Exception):
    """The file is there, and is no JSON object."""


def read(path):
    """The file's text, None if there is none, and its keys.  Raises Unreadable and OSError."""
    if not os.path.lexists(path):
        return None, {}
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is no UTF-8 text: {error}") from None
    if not text.strip():
        return text, {}
    try:
        keys = json.loads(text)
    except ValueError as error:
        # JSONDecodeError's text has line and column.
        raise Unreadable(f"{path} is no JSON: {error}") from None
    if not isinstance(keys, dict):
        raise Unreadable(f"{path} is no JSON object, but begins with {text.strip()[:20]}")
    return text, keys


def write(module, path, text):
    """Replace the file, or what it links to, in one step."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".daemon.json-")
    module.add_cleanup_file(temporary)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if not os.path.exists(path):
        os.chmod(temporary, 0o644)
    module.atomic_move(temporary, path)  # which keeps owner and mode


def encode(text):
    return None if text is None else base64.b64encode(text.encode("utf-8")).decode("ascii")


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "set": {"type": "dict", "default": {}},
            "remove": {"type": "list", "elements": "str", "default": []},
            "restore": {"type": "str"},
        },
        supports_check_mode=True,
    )
    path = os.path.realpath(module.params["path"])
    if module.params["restore"] is not None:
        if not module.check_mode:
            write(module, path, base64.b64decode(module.params["restore"]).decode("utf-8"))
        module.exit_json(changed=True)
    try:
        original, before = read(path)
    except (Unreadable, OSError) as error:
        module.fail_json(
            msg=f"{error}. It is left as it is; mend it or move it away, and run this again."
        )
    after = {key: value for key, value in before.items() if key not in module.params["remove"]}
    after.update(module.params["set"])
    changed = after != before
    text = json.dumps(after, indent=4, ensure_ascii=False) + "\n" if changed else original
    if changed and not module.check_mode:
        try:
            write(module, path, text)
        except OSError as error:
            module.fail_json(msg=f"cannot write {path}: {error.strerror}")
    module.exit_json(
        changed=changed,
        original=encode(original),
        before=before,
        after=after,
        diff={
            "before_header": path,
            "after_header": path,
            "before": original or "",
            "after": text or "",
        },
    )


if __name__ == "__main__":
    main()
