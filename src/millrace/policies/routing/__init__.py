"""Routing: which replica serves this request?"""
