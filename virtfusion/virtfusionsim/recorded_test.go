package virtfusionsim_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// recording is an answer in testdata.
type recording struct {
	name   string
	status int
}

// recordings are the same world as answers written down from the contract, each
// with the request that it answers.
func recordings() map[string]recording {
	return map[string]recording{
		"GET /api/v1/connect":                                        {"connect.json", 200},
		"GET /api/v1/servers?page=1&results=2&type=simple":           {"servers_simple_page1.json", 200},
		"GET /api/v1/servers?page=2&results=2&type=simple":           {"servers_simple_page2.json", 200},
		"GET /api/v1/servers?page=3&results=2&type=simple":           {"servers_simple_page3.json", 200},
		"GET /api/v1/servers?page=1&results=200&type=full":           {"servers_full.json", 200},
		"GET /api/v1/servers/1":                                      {"server_1.json", 200},
		"GET /api/v1/servers/2":                                      {"server_2.json", 200},
		"GET /api/v1/servers/3":                                      {"server_3.json", 200},
		"GET /api/v1/servers/user/7":                                 {"servers_of_user_7.json", 200},
		"GET /api/v1/users/1001/byExtRelation":                       {"user_1001.json", 200},
		"GET /api/v1/packages":                                       {"packages.json", 200},
		"GET /api/v1/packages/3":                                     {"package_3.json", 200},
		"POST /api/v1/selfService/credit/byUserExtRelationId/1001":   {"credit_added.json", 201},
		"DELETE /api/v1/selfService/credit/byUserExtRelationId/1001": {"", 204},
	}
}

// recorded answers with the recordings.
func recorded(t *testing.T) http.Handler {
	t.Helper()
	files := recordings()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, ok := files[r.Method+" "+r.URL.RequestURI()]
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			file = recording{"error_401.txt", http.StatusUnauthorized}
		case !ok:
			file = recording{"error_404.json", http.StatusNotFound}
		}
		if strings.HasSuffix(file.name, ".json") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(file.status)
		if file.name == "" {
			return
		}
		body, err := os.ReadFile(filepath.Join("..", "testdata", filepath.Base(file.name)))
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(body)
	})
}

// calls notes the requests that the suite makes.
type calls struct {
	mu   sync.Mutex
	made map[string]bool
}

func (c *calls) noted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		if c.made == nil {
			c.made = map[string]bool{}
		}
		c.made[r.Method+" "+r.URL.RequestURI()] = true
		c.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// check fails for each recording that no part of the suite asked for.
func (c *calls) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for request := range recordings() {
		if !c.made[request] {
			t.Errorf("the suite never asked for %s", request)
		}
	}
}
