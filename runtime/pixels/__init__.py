"""From any picture to the encoder's input: conversion, resizing, decoding."""
