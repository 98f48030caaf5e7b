// A graphdriver plugin in Go around the engine's own drivers, to compare with.
//
// The driver is Moby's code as Debian packages it; what is here is the protocol around it, as plain
// as it can be: each call is decoded, made, and answered, and nothing of the driver is made better.
//
//	goplugin SOCKET [overlay2|vfs]
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/daemon/graphdriver/overlay2"
	"github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/pkg/archive"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/pkg/reexec"
)

var makers = map[string]graphdriver.InitFunc{"overlay2": overlay2.Init, "vfs": vfs.Init}

// request has the fields of all calls.
type request struct {
	ID, Parent, MountLabel string
	StorageOpt             map[string]string
	Home                   string
	Opts                   []string
	UIDMaps, GIDMaps       []idtools.IDMap
}

func (r *request) createOpts() *graphdriver.CreateOpts {
	return &graphdriver.CreateOpts{MountLabel: r.MountLabel, StorageOpt: r.StorageOpt}
}

// reply has the fields of all replies.
type reply struct {
	Err          string                    `json:",omitempty"`
	Implements   []string                  `json:",omitempty"`
	Capabilities *graphdriver.Capabilities `json:",omitempty"`
	Dir          string                    `json:",omitempty"`
	Exists       bool                      `json:",omitempty"`
	Status       [][2]string               `json:",omitempty"`
	Metadata     map[string]string         `json:",omitempty"`
	Changes      []archive.Change          `json:",omitempty"`
	Size         int64
}

// plugin holds the driver that the last Init made.
type plugin struct {
	make   graphdriver.InitFunc
	lock   sync.RWMutex
	driver graphdriver.Driver
}

func (p *plugin) current() (graphdriver.Driver, error) {
	p.lock.RLock()
	defer p.lock.RUnlock()
	if p.driver == nil {
		return nil, errors.New("GraphDriver.Init has not been called")
	}
	return p.driver, nil
}

func (p *plugin) init(r *request) error {
	driver, err := p.make(r.Home, r.Opts, r.UIDMaps, r.GIDMaps)
	if err != nil {
		return err
	}
	if _, whole := driver.(graphdriver.Driver); !whole {
		return errors.New("the driver has no Diff")
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	p.driver = driver
	return nil
}

// calls of the driver whose messages are JSON both ways.
var calls = map[string]func(graphdriver.Driver, *request, *reply) error{
	"Capabilities": func(d graphdriver.Driver, q *request, a *reply) error {
		a.Capabilities = &graphdriver.Capabilities{}
		return nil
	},
	"Create": func(d graphdriver.Driver, q *request, a *reply) error {
		return d.Create(q.ID, q.Parent, q.createOpts())
	},
	"CreateReadWrite": func(d graphdriver.Driver, q *request, a *reply) error {
		return d.CreateReadWrite(q.ID, q.Parent, q.createOpts())
	},
	"Remove": func(d graphdriver.Driver, q *request, a *reply) error { return d.Remove(q.ID) },
	"Get": func(d graphdriver.Driver, q *request, a *reply) error {
		folder, err := d.Get(q.ID, q.MountLabel)
		if err == nil {
			a.Dir = folder.Path()
		}
		return err
	},
	"Put": func(d graphdriver.Driver, q *request, a *reply) error { return d.Put(q.ID) },
	"Exists": func(d graphdriver.Driver, q *request, a *reply) error {
		a.Exists = d.Exists(q.ID)
		return nil
	},
	"Status": func(d graphdriver.Driver, q *request, a *reply) error {
		a.Status = d.Status()
		return nil
	},
	"GetMetadata": func(d graphdriver.Driver, q *request, a *reply) (err error) {
		a.Metadata, err = d.GetMetadata(q.ID)
		return err
	},
	"Cleanup": func(d graphdriver.Driver, q *request, a *reply) error { return d.Cleanup() },
	"Changes": func(d graphdriver.Driver, q *request, a *reply) (err error) {
		a.Changes, err = d.Changes(q.ID, q.Parent)
		return err
	},
	"DiffSize": func(d graphdriver.Driver, q *request, a *reply) (err error) {
		a.Size, err = d.DiffSize(q.ID, q.Parent)
		return err
	},
}

func (p *plugin) serve(path string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/Plugin.Activate", func(w http.ResponseWriter, r *http.Request) {
		answer(w, &reply{Implements: []string{"GraphDriver"}}, nil)
	})
	mux.HandleFunc("/GraphDriver.Init", func(w http.ResponseWriter, r *http.Request) {
		q := &request{}
		err := json.NewDecoder(r.Body).Decode(q)
		if err == nil {
			err = p.init(q)
		}
		answer(w, &reply{}, err)
	})
	for name, call := range calls {
		call := call
		mux.HandleFunc("/GraphDriver."+name, func(w http.ResponseWriter, r *http.Request) {
			a := &reply{}
			answer(w, a, p.call(r, func(d graphdriver.Driver, q *request) error {
				return call(d, q, a)
			}))
		})
	}
	mux.HandleFunc("/GraphDriver.Diff", p.diff)
	mux.HandleFunc("/GraphDriver.ApplyDiff", p.applyDiff)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	return http.Serve(listener, mux)
}

func (p *plugin) call(r *http.Request, call func(graphdriver.Driver, *request) error) error {
	q := &request{}
	if err := json.NewDecoder(r.Body).Decode(q); err != nil {
		return err
	}
	d, err := p.current()
	if err != nil {
		return err
	}
	return call(d, q)
}

func (p *plugin) diff(w http.ResponseWriter, r *http.Request) {
	err := p.call(r, func(d graphdriver.Driver, q *request) error {
		tar, err := d.Diff(q.ID, q.Parent)
		if err != nil {
			return err
		}
		defer tar.Close()
		if _, err := io.Copy(w, tar); err != nil {
			log.Printf("Diff %s: %s", q.ID, err)
			panic(http.ErrAbortHandler) // or the engine would take it for whole
		}
		return nil
	})
	if err != nil {
		answer(w, &reply{}, err)
	}
}

func (p *plugin) applyDiff(w http.ResponseWriter, r *http.Request) {
	a := &reply{}
	d, err := p.current()
	if err == nil {
		query := r.URL.Query()
		a.Size, err = d.ApplyDiff(query.Get("id"), query.Get("parent"), r.Body)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body) // the engine hashes what it sends until we answer
	}
	answer(w, a, err)
}

func answer(w http.ResponseWriter, a *reply, err error) {
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
	if err != nil {
		a = &reply{Err: err.Error()}
		w.WriteHeader(http.StatusInternalServerError)
	}
	if err := json.NewEncoder(w).Encode(a); err != nil {
		log.Print(err)
	}
}

func main() {
	if reexec.Init() { // the driver unpacks in copies of this program
		return
	}
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: goplugin SOCKET [overlay2|vfs]")
		os.Exit(2)
	}
	name := "overlay2"
	if len(os.Args) == 3 {
		name = os.Args[2]
	}
	maker, known := makers[name]
	if !known {
		fmt.Fprintln(os.Stderr, "goplugin: there is no driver", name)
		os.Exit(2)
	}
	log.Fatal((&plugin{make: maker}).serve(os.Args[1]))
}
