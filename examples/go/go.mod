module github.com/lemni/lemni/examples/go

go 1.18
