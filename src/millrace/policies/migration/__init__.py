"""Migration: which requests are better off on another replica?"""
