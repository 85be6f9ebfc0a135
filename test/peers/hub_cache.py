"""What huggingface_hub and transformers find in a cache, and what they put there.

    python hub_cache.py find REPO      prints the snapshot folder of a model that is in the cache, without a network
    python hub_cache.py pull REPO      downloads it from HF_ENDPOINT, and prints the folder
"""

import sys

from huggingface_hub import scan_cache_dir, snapshot_download
from transformers import AutoConfig

action, repo = sys.argv[1:]
folder = snapshot_download(repo, local_files_only=action == "find")
AutoConfig.from_pretrained(repo, local_files_only=True)
found = scan_cache_dir()
assert not found.warnings, found.warnings
assert [one.repo_id for one in found.repos] == [repo], found.repos
print(folder)
