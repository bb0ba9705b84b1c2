"""The data's way on Ray: the only part of the library that imports it, and the only process that commits.

Nothing is imported here: Ray reads its environment when it is imported, see `pipeline.flow.ray_env`.
"""
