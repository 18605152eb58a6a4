package main

import (
	"strings"
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a call that failed, and so changed nothing.
type Error struct {
	Code       codes.Code
	Message    string            // what was wrong, and the remedy; for people
	Reason     string            // why, such as SHAPE_MISMATCH; empty where no server said it
	Facts      map[string]string // such as the limit that was hit
	RetryAfter time.Duration     // when the server asks to be called again; 0 where it does not
}

// asError reads the details out of gRPC's error.
func asError(err error) *Error {
	told := status.Convert(err)
	made := &Error{Code: told.Code(), Message: told.Message()}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			made.Reason, made.Facts = detail.Reason, detail.Metadata
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay()
			made.RetryAfter = time.Duration(delay.GetSeconds())*time.Second + time.Duration(delay.GetNanos())
		}
	}
	return made
}

// Passing tells whether the same call, under the same request_id, may do better later.
func (e *Error) Passing() bool {
	return e.Code == codes.Unavailable || e.RetryAfter > 0
}

// Name returns the code as the contract writes it, and the reason, if there is one.
func (e *Error) Name() string {
	return strings.TrimSpace(rpccode.Code_name[int32(e.Code)] + " " + e.Reason)
}

func (e *Error) Error() string {
	return e.Name() + ": " + e.Message
}
