"""Plots, timelines, tables and trace exports of predictions and executions."""
