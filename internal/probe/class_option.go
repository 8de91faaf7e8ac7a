package probe

import (
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// optionTrials lists the calls that set a socket option. The gate has a
// descriptor that nobody has: the kernel refuses it with EBADF before it looks
// at the option, and nothing is set.
func optionTrials(abis []afalg.ABI, option afalg.SocketOption) []trial {
	var trials []trial
	for _, a := range abis {
		for _, o := range []op{opSetsockopt, opSocketcallSetsockopt} {
			for _, high := range classHighs {
				if o == opSocketcallSetsockopt && (a.Socketcall == 0 || high != 0) || a.Kind == afalg.Compat && high != 0 {
					continue
				}
				c := call{a, a == abis[0], o, high}
				keepalive := afalg.SocketOption{Level: unix.SOL_SOCKET, Option: unix.SO_KEEPALIVE}
				t := trial{name: c.named(string(o)), abi: a, own: c.own, refusal: unix.EBADF, judge: judgeOption}
				if !c.own {
					t.alive = []ask{{ABI: a.Name, Op: opGetpid}}
				}
				t.control = []ask{c.option(keepalive, true)}
				t.gateControl = []ask{c.option(keepalive, false)}
				t.gate = c.option(afalg.SocketOption{Level: a.SocketLevelOn(option.Level), Option: option.Option}, false)
				trials = append(trials, t)
			}
		}
	}
	return trials
}

// option asks for an option of a socket that there is, or is not.
func (c call) option(o afalg.SocketOption, there bool) ask {
	high := uint64(c.high) << 32
	return ask{ABI: c.abi.Name, Op: c.op, Level: uint64(o.Level) | high, Option: uint64(o.Option) | high, There: there}
}

func judgeOption(p *prober, t tried) Outcome {
	o, decided := t.begin(p)
	switch {
	case decided:
		return o
	case o.Filter == Denies:
		return t.closedByFilter(o)
	case o.Filter == Passes:
		o.Verdict, o.Detail = Open, "the call reaches the kernel"
		return o
	}
	return undecided(o, t.gate)
}

// setOption puts a question about setsockopt.
func (q ask) setOption(e entry) answer {
	fd := -1
	if q.There {
		var err error
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
			return answer{Errno: err.(unix.Errno), Stage: stageMap}
		}
		defer unix.Close(fd)
	}
	e.words(pageArgs+64, 1)
	value := e.address(pageArgs + 64)
	var errno unix.Errno
	if q.Op == opSocketcallSetsockopt {
		e.words(pageArgs, uint32(fd), uint32(q.Level), uint32(q.Option), uint32(value), 4)
		_, errno = e.syscall(e.Socketcall, 14, e.address(pageArgs))
	} else {
		_, errno = e.syscall(e.Setsockopt, uintptr(uint32(fd)), uintptr(q.Level), uintptr(q.Option), value, 4)
	}
	return answer{OK: errno == 0, Errno: errno}
}
