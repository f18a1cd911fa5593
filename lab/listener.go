package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

const listenerPort = 80

// listenerPatience is how long a listener waits for a line.
const listenerPatience = 10 * time.Second

// stay is the line after which a listener of TCP awaits another.
const stay = "stay"

// listener answers on port 80 of a pod, TCP and UDP, both families, with the pod's name.
// To HTTP it answers as HTTP.
type listener struct{ closers []io.Closer }

// listen makes the sockets in the caller's network namespace.
func listen(name string) (*listener, error) {
	l := &listener{}
	for _, family := range []string{"4", "6"} {
		if err := l.open(family, name); err != nil {
			if family == "6" && errors.Is(err, syscall.EAFNOSUPPORT) {
				continue
			}
			l.close()
			return nil, fmt.Errorf("listen on port %d of %s: %w", listenerPort, name, err)
		}
	}
	return l, nil
}

func (l *listener) open(family, name string) error {
	tcp, err := net.ListenTCP("tcp"+family, &net.TCPAddr{Port: listenerPort})
	if err != nil {
		return err
	}
	l.closers = append(l.closers, tcp)
	udp, err := net.ListenUDP("udp"+family, &net.UDPAddr{Port: listenerPort})
	if err != nil {
		return err
	}
	l.closers = append(l.closers, udp)
	go serveTCP(tcp, name)
	go serveUDP(udp, name)
	return nil
}

func (l *listener) close() {
	for _, c := range l.closers {
		c.Close()
	}
}

func serveTCP(l *net.TCPListener, name string) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: the client retries
			continue
		}
		go serveConn(conn, name)
	}
}

func serveConn(conn *net.TCPConn, name string) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for {
		conn.SetDeadline(time.Now().Add(listenerPatience))
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, "HTTP/1.1") || strings.HasSuffix(line, "HTTP/1.0") {
			fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(name)+1)
		}
		fmt.Fprintln(conn, name)
		if line != stay {
			return
		}
	}
}

func serveUDP(c *net.UDPConn, name string) {
	buf := make([]byte, 2048)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			c.WriteToUDPAddrPort([]byte(name+"\n"), from)
		}
	}
}
