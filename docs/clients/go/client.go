package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"math"
	mathrand "math/rand"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/metadata"

	pb "backwire.example/go/backwirev1"
)

const (
	firstWait   = 50 * time.Millisecond
	longestWait = 2 * time.Second
	connectTime = 20 * time.Second // at least, as gRPC's default: a busy server is slow to answer, and not gone
)

// Client makes calls: each with a deadline, and repeated under the same request_id while the server cannot be reached.
type Client struct {
	Repeated   int           // how often a call was repeated
	Timeout    time.Duration // how long a call may take, repetitions included
	connection *grpc.ClientConn
	stub       pb.GradientServiceClient
	token      string
}

// Connect returns a client of the server at host:port. The token may be empty.
func Connect(target, token string) (*Client, error) {
	waits := backoff.Config{BaseDelay: firstWait, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestWait}
	connection, err := grpc.Dial(
		target,
		grpc.WithInsecure(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: waits, MinConnectTimeout: connectTime}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)), // outputs may be larger than gRPC's 4 MiB
	)
	if err != nil {
		return nil, err
	}
	stub := pb.NewGradientServiceClient(connection)
	return &Client{Timeout: 30 * time.Second, connection: connection, stub: stub, token: token}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.connection.Close() }

// CreateSession returns the id of a new session. Without an optimizer it only computes.
func (c *Client) CreateSession(graph *pb.Graph, optimizer *pb.Optimizer, seed uint64) (string, error) {
	request := &pb.CreateSessionRequest{Graph: graph, Optimizer: optimizer, Seed: seed, RequestId: newID()}
	var made *pb.CreateSessionResponse
	err := c.patiently(c.Timeout, func(ctx context.Context) (err error) {
		made, err = c.stub.CreateSession(ctx, request)
		return err
	})
	return made.GetSession().GetSessionId(), err
}

// GetSession tells where a session stands.
func (c *Client) GetSession(session string) (*pb.Session, error) {
	var found *pb.GetSessionResponse
	err := c.patiently(c.Timeout, func(ctx context.Context) (err error) {
		found, err = c.stub.GetSession(ctx, &pb.GetSessionRequest{SessionId: session})
		return err
	})
	return found.GetSession(), err
}

// DeleteSession deletes a session with all that it holds.
func (c *Client) DeleteSession(session string) error {
	request := &pb.DeleteSessionRequest{SessionId: session, RequestId: newID()}
	return c.patiently(c.Timeout, func(ctx context.Context) error {
		_, err := c.stub.DeleteSession(ctx, request)
		return err
	})
}

// TrainStep is Forward, Backward and Step in one.
func (c *Client) TrainStep(session string, inputs Tensors) (*pb.TrainStepResponse, error) {
	request := &pb.TrainStepRequest{SessionId: session, Inputs: inputs, RequestId: newID()}
	var done *pb.TrainStepResponse
	err := c.patiently(c.Timeout, func(ctx context.Context) (err error) {
		done, err = c.stub.TrainStep(ctx, request)
		return err
	})
	return done, err
}

// Evaluate returns outputs and loss, without a pass that is kept.
func (c *Client) Evaluate(session string, inputs Tensors, timeout time.Duration) (*pb.ForwardResponse, error) {
	request := &pb.ForwardRequest{SessionId: session, Inputs: inputs, Mode: pb.Mode_MODE_EVAL}
	var found *pb.ForwardResponse
	err := c.patiently(timeout, func(ctx context.Context) (err error) {
		found, err = c.stub.Forward(ctx, request)
		return err
	})
	return found, err
}

// SetParameters replaces parameters of any size.
func (c *Client) SetParameters(session string, tensors Tensors) error {
	id := newID()
	return c.patiently(c.Timeout, func(ctx context.Context) error {
		stream, err := c.stub.SetParameters(ctx)
		if err != nil {
			return err
		}
		for name, tensor := range tensors {
			for _, chunk := range ChunksOf(name, tensor) {
				request := &pb.SetParametersRequest{SessionId: session, RequestId: id, Chunk: chunk}
				if stream.Send(request) != nil { // the stream has ended, and its answer says why
					_, err := stream.CloseAndRecv()
					return err
				}
			}
		}
		last := &pb.SetParametersRequest{SessionId: session, RequestId: id, Last: true}
		if err := stream.Send(last); err != nil && err != io.EOF {
			return err
		}
		_, err = stream.CloseAndRecv()
		return err
	})
}

// GetParameters reads parameters of any size.
func (c *Client) GetParameters(session string, names ...string) (Tensors, error) {
	var found Tensors
	err := c.patiently(c.Timeout, func(ctx context.Context) error {
		stream, err := c.stub.GetParameters(ctx, &pb.GetParametersRequest{SessionId: session, Names: names})
		if err != nil {
			return err
		}
		var assembler Assembler
		for {
			part, err := stream.Recv()
			if err == io.EOF {
				found, err = assembler.Finish()
				return err
			}
			if err != nil {
				return err
			}
			if err := assembler.Add(part.Chunk); err != nil {
				return err
			}
		}
	})
	return found, err
}

// patiently makes a call, and makes it again after a failure that passes, until the time is up.
func (c *Client) patiently(timeout time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	for wait := firstWait; ; wait = shorter(2*wait, longestWait) {
		err := call(ctx)
		if err == nil {
			return nil
		}
		failure := asError(err)
		pause := wait/2 + time.Duration(mathrand.Int63n(int64(wait/2)))
		if failure.RetryAfter > pause {
			pause = failure.RetryAfter
		}
		if end, _ := ctx.Deadline(); !failure.Passing() || time.Now().Add(pause).After(end) {
			return failure
		}
		c.Repeated++
		time.Sleep(pause)
	}
}

func shorter(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}

// newID draws the request_id of one intended mutation.
func newID() string {
	drawn := make([]byte, 16)
	if _, err := rand.Read(drawn); err != nil {
		panic(err) // the system has no randomness
	}
	return hex.EncodeToString(drawn)
}
