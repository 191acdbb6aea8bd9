"""The night as a page: ``data`` asks the store, ``pictures`` decodes the frames, ``page`` makes one HTML file of it.

``mining report`` writes that file, ``mining review`` serves the same page with verdicts.
"""
