package main

import "context"

func (b *bench) write(ctx context.Context, path string) error { return ctx.Err() }
