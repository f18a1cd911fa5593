package main

import "context"

func runStart(ctx context.Context, b *bench) error    { return nil }
func runMemory(ctx context.Context, b *bench) error   { return nil }
func runCalc(ctx context.Context, b *bench) error     { return nil }
func runIPAM(ctx context.Context, b *bench) error     { return nil }
func runCtl(ctx context.Context, b *bench) error      { return nil }
func runReadback(ctx context.Context, b *bench) error { return nil }
func runMicro(ctx context.Context, b *bench) error    { return nil }
func calcProcess([]string) error                      { return nil }
