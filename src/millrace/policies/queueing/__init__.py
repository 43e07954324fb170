"""Queueing: which held request is placed next?"""
