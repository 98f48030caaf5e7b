#!/usr/bin/python
"""What images and containers lie in Docker's data root, by storage driver.

Runs on the managed machine, on Python 3.6 and later.  It reads the files that the engine keeps, so
it also knows those of a driver that the engine is not on, and of an engine that does not start.

Easy to get wrong: with user namespaces the engine keeps its data one folder further down.
"""

import glob
import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: docker_data
short_description: Tells what images and containers Docker's data root holds, by storage driver
description:
  - Reads the data root; no engine is needed, and none is asked.
options:
  path:
    description: The data root.
    type: path
    default: /var/lib/docker
author: The Manuka authors
"""

EXAMPLES = r"""
- name: See what is kept
  docker_data:
  register: data
"""

RETURN = r"""
drivers:
  description:
    - By driver, the C(images) and C(containers) by name; an image without a name by its short id.
    - A driver that holds neither is not there.
  type: dict
  returned: always
"""


def load(path):
    """The object in a JSON file; an empty one where it cannot be had."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def image_names(folder):
    """The names of the images below ROOT/image/DRIVER."""
    names = {}
    for references in (
        load(os.path.join(folder, "repositories.json")).get("Repositories", {}).values()
    ):
        for name, identifier in references.items():
            if "@" not in name:
                names.setdefault(identifier, []).append(name)
    result = []
    for path in glob.glob(os.path.join(folder, "imagedb/content/sha256/*")):
        digest = os.path.basename(path)
        result += names.get("sha256:" + digest, [digest[:12]])
    return sorted(result)


def container_names(root):
    """Driver to the names of its containers below ROOT/containers."""
    result = {}
    for path in glob.glob(os.path.join(root, "containers/*/config.v2.json")):
        container = load(path)
        name = str(container.get("Name", "")).lstrip("/")
        identifier = os.path.basename(os.path.dirname(path))[:12]
        result.setdefault(container.get("Driver", ""), []).append(name or identifier)
    return result


def main():
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "default": "/var/lib/docker"}},
        supports_check_mode=True,
    )
    drivers = {}
    path = module.params["path"]
    for root in [path, *glob.glob(os.path.join(path, "[0-9]*.[0-9]*"))]:
        for folder in glob.glob(os.path.join(root, "image/*")):
            found = image_names(folder)
            if found:
                held = drivers.setdefault(
                    os.path.basename(folder), {"images": [], "containers": []}
                )
                held["images"] += found
        for driver, found in container_names(root).items():
            held = drivers.setdefault(driver, {"images": [], "containers": []})
            held["containers"] += sorted(found)
    module.exit_json(changed=False, drivers=drivers)


if __name__ == "__main__":
    main()
