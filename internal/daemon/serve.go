package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of every listener.
const (
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 15 * time.Second // header and body of a request together
	writeTimeout   = 60 * time.Second // from the end of the header to the last octet of the answer
	idleTimeout    = 30 * time.Second
	maxHeaderBytes = 16 << 10
	maxConnections = 4096 // further ones wait in the kernel's queue
	maxStreams     = 100  // requests at a time in one connection of HTTP/2
	drainTime      = 10 * time.Second
)

// Server is one listener.
type Server struct {
	Name         string // for logs and errors: "admin", "ocsp", "feed"
	Key          string // config key of the address, for errors; "": Name.listen
	Address      string
	TLS          *tls.Config // nil: plain HTTP
	Handler      http.Handler
	StreamWrites bool           // no write timeout, and requests end when ctx does (the feed's long poll)
	Listening    func(net.Addr) // if not nil, told the address once all listeners of the daemon are open
}

// Serve opens all listeners first (one that fails is an error naming it, and none stays open), then serves until ctx ends and
// drains for 10 s. Header and body timeouts, idle timeout, 16 KiB header limit, connection limit on every one.
// A handler that needs longer than the write timeout of 60 s extends it with http.ResponseController.
func Serve(ctx context.Context, log *slog.Logger, servers ...Server) error {
	l, err := Listen(ctx, servers...)
	if err != nil {
		return err
	}
	return l.Serve(ctx, log)
}

// Listeners are the open listeners of a daemon, which nobody serves yet: who calls waits. They are for one goroutine.
type Listeners struct {
	servers []Server
	open    []net.Listener // as many, in the same order
	serving bool
}

// Listen opens the listeners of all servers, or none: the error names the one that failed. A daemon calls it before it
// records or signs anything, so that a port in use changes nothing.
func Listen(ctx context.Context, servers ...Server) (*Listeners, error) {
	open, err := listenAll(ctx, servers)
	if err != nil {
		return nil, err
	}
	return &Listeners{servers: servers, open: open}, nil
}

// Close closes listeners that Serve has not been called on; after Serve, which closes them itself, it does nothing.
func (l *Listeners) Close() error {
	if l.serving {
		return nil
	}
	l.serving = true
	var err error
	for _, o := range l.open {
		err = errors.Join(err, o.Close())
	}
	return err
}

// Serve serves as the function Serve does. Call it once.
func (l *Listeners) Serve(ctx context.Context, log *slog.Logger) error {
	l.serving = true
	servers, listeners := l.servers, l.open
	debug.FreeOSMemory() // to open a software key takes 32 MB for scrypt: the collector is not to take them for what is kept
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var serving, draining sync.WaitGroup
	for i, s := range servers {
		h := httpServer(ctx, log, s)
		log.Info("listening", "server", s.Name, "address", listeners[i].Addr().String(), "tls", s.TLS != nil)
		if s.Listening != nil {
			s.Listening(listeners[i].Addr())
		}
		serving.Go(func() {
			if err := serveOne(h, newLimited(listeners[i], maxConnections)); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serve %s on %s: %w", s.Name, s.Address, err))
			}
		})
		draining.Go(func() {
			<-ctx.Done()
			drain(h, log.With("server", s.Name))
		})
	}
	draining.Wait()
	serving.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// listenAll opens the listeners of all servers, or none.
func listenAll(ctx context.Context, servers []Server) ([]net.Listener, error) {
	var open []net.Listener
	for _, s := range servers {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", s.Address)
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
			return nil, listenError(s, err)
		}
		open = append(open, l)
	}
	return open, nil
}

func listenError(s Server, err error) error {
	key := s.Key
	if key == "" {
		key = s.Name + ".listen"
	}
	remedy := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = ": stop the process that has it, or choose another address"
	case errors.Is(err, syscall.EACCES):
		remedy = ": ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = ": this machine does not have that address"
	}
	return fmt.Errorf("listen for %s on %s (configuration key %s): %w%s", s.Name, s.Address, key, err, remedy)
}

func httpServer(ctx context.Context, logger *slog.Logger, s Server) *http.Server {
	h := &http.Server{
		Handler:           s.Handler,
		TLSConfig:         s.TLS,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          log.New(errorLog{logger.With("server", s.Name)}, "", 0),
	}
	if s.StreamWrites {
		h.WriteTimeout = 0
		h.BaseContext = func(net.Listener) context.Context { return ctx }
	}
	return h
}

func serveOne(h *http.Server, l net.Listener) error {
	if h.TLSConfig != nil {
		return h.ServeTLS(l, "", "")
	}
	return h.Serve(l)
}

// drain lets the requests that have begun end, and after drainTime cuts them off.
func drain(h *http.Server, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		log.Warn("requests were cut off", "after", drainTime.String(), "close", h.Close())
	}
}

// errorLog takes what net/http has to say. Failed handshakes are the peers' doing and many; the rest, panics of
// handlers among it, is ours.
type errorLog struct{ log *slog.Logger }

func (e errorLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: TLS handshake error") {
		e.log.Info("TLS handshake refused", "detail", text)
	} else {
		e.log.Error("HTTP server", "detail", text)
	}
	return len(line), nil
}

// limited is a listener that has at most so many connections open at a time.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimited(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitedConn gives its slot back when it is closed.
type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

var _ io.Writer = errorLog{}
