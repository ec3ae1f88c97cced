// Compares an embedding model with a reranker, both behind URLs: the Go twin of ../rerank_compare.py.
//
//	go run . -endpoint http://localhost:7997/rerank -model BAAI/bge-reranker-v2-m3
//
// Embeddings come from OPENAI_BASE_URL with OPENAI_API_KEY; with only the key from api.openai.com; with neither from the
// same server.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"

	"github.com/lemni/lemni/examples/go/infinity"
)

const defaultEndpoint = "http://localhost:7997/rerank"

func main() {
	endpoint := flag.String("endpoint", os.Getenv("INFINITY_URL"), "reranker's `URL` (default "+defaultEndpoint+") [env: INFINITY_URL]")
	model := flag.String("model", "", "reranker's `name`; the server chooses without one")
	embeddingModel := flag.String("embedding-model", "", "embedding model's `name`; OpenAI's small one, or the server's own")
	apiKey := flag.String("api-key", "", "the reranker's `key`")
	flag.Parse()
	if err := run(context.Background(), *endpoint, *model, *embeddingModel, *apiKey); err != nil {
		fmt.Fprintln(os.Stderr, "rerank:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint, model, embeddingModel, apiKey string) error {
	endpoint, err := withPath(endpoint)
	if err != nil {
		return err
	}
	reranker, err := infinity.New(
		infinity.WithEndpoint(endpoint),
		infinity.WithModel(model),
		infinity.WithAPIKey(apiKey),
	)
	if err != nil {
		return err
	}
	embedder, err := newEmbedder(endpoint, embeddingModel, apiKey)
	if err != nil {
		return err
	}
	name, err := embedder.name(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("Using reranker endpoint: %s\n", endpoint)
	fmt.Printf("Using embedding model: %s\n", name)
	fmt.Println()
	for _, tc := range testCases {
		if err := compare(ctx, tc, embedder, reranker); err != nil {
			return err
		}
	}
	return nil
}

func compare(ctx context.Context, tc testCase, embedder *embedder, reranker *infinity.Reranker) error {
	line := strings.Repeat("=", 70)
	fmt.Printf("\n%s\nCase: %s\nQuery: %s\n%s\n", line, tc.name, tc.query, line)

	fmt.Println("\n--- Embedding Similarity (Bi-Encoder) ---")
	similar, err := embedder.similarities(ctx, tc.query, tc.documents)
	if err != nil {
		return err
	}
	sort.SliceStable(similar, func(i, j int) bool { return similar[i].Score > similar[j].Score })
	show(similar)

	fmt.Println("\n--- Reranker Scores (Cross-Encoder) ---")
	relevant, err := reranker.Rerank(ctx, tc.query, tc.documents)
	if err != nil {
		return err
	}
	show(relevant)
	return nil
}

func show(results []infinity.Result) {
	for place, result := range results {
		fmt.Printf("%d. [Score: %.7f] %s\n", place+1, result.Score, result.Document)
	}
}

// An endpoint without a path is the base URL of a server, as other clients keep it in INFINITY_URL.
func withPath(endpoint string) (string, error) {
	if endpoint == "" {
		return defaultEndpoint, nil
	}
	parsed, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	if parsed.Path == "" || parsed.Path == "/" {
		parsed.Path = "/rerank"
	}
	return parsed.String(), nil
}
