"""Lemni in other people's frameworks: a module for each, over `lemni.Client`. Importing one imports its framework.

Every class takes `model`, `base_url`, `api_key`, `client` and `options` alike. `docs/integrations.md` shows each.
"""
