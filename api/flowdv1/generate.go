// Package flowdv1 is the wire format of flowd's API, generated from flowd.proto,
// which is also its reference documentation.
//
// To generate it again: protoc 3.21 or newer, and
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//	go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
package flowdv1

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative flowd.proto
