package httpserver

import (
	"fmt"
	"io/fs"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// Paths of the routes that every process has.
const (
	pathHealth  = "/healthz"
	pathReady   = "/readyz"
	pathMetrics = "/metrics"
	pathOpenAPI = "/openapi.yaml"
	pathSchema  = "/schemas/:name"
)

func (s *Server) registerRoutes() error {
	s.echo.GET(pathHealth, health)
	s.echo.GET(pathReady, s.readiness)
	s.echo.GET(pathMetrics, echo.WrapHandler(promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{
		ErrorLog:      metricsLog{s.log},
		ErrorHandling: promhttp.ContinueOnError,
	})))
	if len(s.cfg.OpenAPI) > 0 {
		s.echo.GET(pathOpenAPI, document("application/yaml", s.cfg.OpenAPI))
	}
	if s.cfg.Schemas == nil {
		return nil
	}
	schemas, err := readSchemas(s.cfg.Schemas)
	if err != nil {
		return err
	}
	s.echo.GET(pathSchema, func(c echo.Context) error {
		doc, ok := schemas[c.Param("name")]
		if !ok {
			return echo.ErrNotFound
		}
		return document("application/schema+json", doc)(c)
	})
	return nil
}

// health says that the process answers; what it depends on is /readyz's business.
func health(c echo.Context) error {
	return c.JSON(http.StatusOK, successBody{Success: true, Data: map[string]string{"status": "ok"}})
}

type successBody struct {
	Success bool `json:"success"`
	Data    any  `json:"data,omitempty"`
}

func document(contentType string, body []byte) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderCacheControl, "no-cache")
		return c.Blob(http.StatusOK, contentType, body)
	}
}

// readSchemas reads every *.json file of the root, so that a request can only
// name one of those.
func readSchemas(fsys fs.FS) (map[string][]byte, error) {
	names, err := fs.Glob(fsys, "*.json")
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	schemas := make(map[string][]byte, len(names))
	for _, name := range names {
		if schemas[name], err = fs.ReadFile(fsys, name); err != nil {
			return nil, fmt.Errorf("read schema %s: %w", name, err)
		}
	}
	return schemas, nil
}

// metricsLog takes promhttp's complaints.
type metricsLog struct{ log zerolog.Logger }

func (l metricsLog) Println(v ...any) {
	l.log.Warn().Str("detail", bounded(fmt.Sprint(v...), maxLoggedText)).Msg("metrics incomplete")
}
