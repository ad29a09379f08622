"""Modules' parts in SambaFlow; the stand-in has parameters only."""
